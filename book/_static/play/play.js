/* Figures to play with: what all of them share. No library, no network, no build step.

   Three parts: the update rules and schedules, as short as they are on paper (the tests compare
   them with minioptim, over 200 steps, to 1e-9); a plot in SVG; and the wiring between the native
   inputs of a figure, its drawings and its words. A figure is one more file, which calls
   Play.figure(name, make). Classic scripts, because browsers refuse modules from file://. */
"use strict";

var Play = (function () {
  // ---- update rules: a point and its gradient in, the next point out; state is theirs ----------

  function sgd(p, g, state, o) {
    return p.map((x, i) => x - o.lr * g[i]);
  }

  function momentum(p, g, state, o) {
    state.b = state.b ? state.b.map((b, i) => o.beta * b + g[i]) : g.slice();
    return p.map((x, i) => x - o.lr * state.b[i]);
  }

  function adam(p, g, state, o) {
    const t = (state.t = (state.t || 0) + 1);
    const old = state.m ? state : { m: g.map(() => 0), v: g.map(() => 0) };
    const m = g.map((d, i) => o.beta1 * old.m[i] + (1 - o.beta1) * d);
    const v = g.map((d, i) => o.beta2 * old.v[i] + (1 - o.beta2) * d * d);
    state.m = m;
    state.v = v;
    const c1 = o.hats === false ? 1 : 1 - o.beta1 ** t;
    const c2 = o.hats === false ? 1 : 1 - o.beta2 ** t;
    return p.map((x, i) => x - (o.lr * m[i]) / c1 / (Math.sqrt(v[i] / c2) + o.eps));
  }

  /* All points of a walk, the start included. It ends early where numbers end. */
  function walk(rule, options, gradient, start, steps) {
    const points = [start];
    const state = {};
    for (let t = 0; t < steps; t++) {
      const next = rule(points[t], gradient(points[t], t), state, options);
      if (!next.every((x) => Math.abs(x) < 1e150)) break;
      points.push(next);
    }
    return points;
  }

  // ---- schedules: `at` is the rate after t steps, `next` makes it from the rate before ---------

  const schedulers = {
    LinearLR: {
      at: (t, base, o) =>
        base *
        (o.start_factor +
          ((o.end_factor - o.start_factor) * Math.min(o.total_iters, t)) / o.total_iters),
      next: (t, lr, base, o) => {
        const rise = o.end_factor - o.start_factor;
        if (t === 0) return lr * o.start_factor;
        if (t > o.total_iters) return lr;
        return lr * (1 + rise / (o.total_iters * o.start_factor + (t - 1) * rise));
      },
    },
    StepLR: {
      at: (t, base, o) => base * o.gamma ** Math.floor(t / o.step_size),
      next: (t, lr, base, o) => (t === 0 || t % o.step_size ? lr : lr * o.gamma),
    },
    MultiStepLR: {
      at: (t, base, o) => base * o.gamma ** o.milestones.filter((m) => m <= t).length,
      next: (t, lr, base, o) => lr * o.gamma ** o.milestones.filter((m) => m === t).length,
    },
    ExponentialLR: {
      at: (t, base, o) => base * o.gamma ** t,
      next: (t, lr, base, o) => (t === 0 ? lr : lr * o.gamma),
    },
    CosineAnnealingLR: {
      at: (t, base, o) =>
        o.eta_min + ((base - o.eta_min) * (1 + Math.cos((Math.PI * t) / o.T_max))) / 2,
      next: (t, lr, base, o) => {
        const wave = (s) => 1 + Math.cos((Math.PI * s) / o.T_max);
        if (t === 0) return lr;
        if ((t - 1 - o.T_max) % (2 * o.T_max) === 0)
          return lr + ((base - o.eta_min) * (1 - Math.cos(Math.PI / o.T_max))) / 2;
        return (wave(t) / wave(t - 1)) * (lr - o.eta_min) + o.eta_min;
      },
    },
  };

  /* The rates of steps 0 to `steps`. A design is {lr, join, milestone, parts: [{kind, options}]};
     join is "" (the first part alone), "SequentialLR" or "ChainedScheduler". */
  function trace(design, steps) {
    const [a, b] = design.parts;
    const at = (part, t) => schedulers[part.kind].at(t, design.lr, part.options);
    const next = (part, t, lr) => schedulers[part.kind].next(t, lr, design.lr, part.options);
    const rates = [];
    for (let t = 0; t <= steps; t++) {
      if (design.join === "ChainedScheduler") {
        const before = t ? rates[t - 1] : design.lr;
        rates.push(next(b, t, next(a, t, before)));
      } else if (design.join === "SequentialLR" && t >= design.milestone) {
        rates.push(at(b, t - design.milestone));
      } else {
        rates.push(at(a, t));
      }
    }
    return rates;
  }

  // ---- noise that is the same for every reader -------------------------------------------------

  function normals(seed) {
    let s = seed >>> 0;
    const uniform = () => {
      s = (s + 0x6d2b79f5) >>> 0;
      let z = Math.imul(s ^ (s >>> 15), s | 1);
      z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
      return (((z ^ (z >>> 14)) >>> 0) + 0.5) / 4294967296;
    };
    return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
  }

  // ---- numbers in words ------------------------------------------------------------------------

  function number(x, digits) {
    if (!isFinite(x)) return "beyond all bounds";
    const size = Math.abs(x);
    if (size < 1e-12) return "0";
    if (size >= 1e6 || size < 1e-4) {
      const [m, e] = x.toExponential(1).split("e");
      const power = [...String(+e)].map((c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"["0123456789".indexOf(c)] || "⁻").join("");
      return (m === "1.0" ? "" : m.replace("-", "−") + "·") + "10" + power;
    }
    const text = String(+x.toPrecision(digits || 3));
    return text.replace("-", "−");
  }

  // ---- a plot ----------------------------------------------------------------------------------

  const escape = (text) => String(text).replace(/[<&]/g, (c) => (c === "<" ? "&lt;" : "&amp;"));

  function ticks(low, high, room) {
    const rough = (high - low) / Math.max(2, room);
    const ten = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find((k) => k * ten >= rough * 0.999) * ten;
    const found = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++)
      found.push(+(k * step).toPrecision(12));
    return found;
  }

  function decades(low, high, room) {
    const from = Math.ceil(Math.log10(low) - 1e-9);
    const to = Math.floor(Math.log10(high) + 1e-9);
    const stride = Math.max(1, Math.ceil((to - from) / Math.max(2, room)));
    const found = [];
    for (let k = from; k <= to; k += stride) found.push(10 ** k);
    return found;
  }

  class Plot {
    /* o: x and y as [low, high], log as a string of axes, xlabel, ylabel,
       bare without axes, equal for equal units */
    constructor(svg, o) {
      const box = svg.getBoundingClientRect();
      this.svg = svg;
      this.o = Object.assign({ log: "" }, o);
      this.width = Math.max(200, Math.round(box.width));
      this.height = Math.max(80, Math.round(box.height));
      this.left = o.bare ? 1 : 46;
      this.right = this.width - (o.bare ? 1 : 10);
      this.top = o.ylabel ? 22 : o.bare ? 1 : 8;
      this.bottom = this.height - (o.bare ? 1 : o.xlabel ? 40 : 22);
      if (o.equal) {
        // one unit is as long across as it is up: the range of x follows from that of y
        const half = (((o.y[1] - o.y[0]) / 2) * (this.right - this.left)) / (this.bottom - this.top);
        this.o.x = [-half, half];
      }
      this.under = [];
      this.marks = [];
      this.over = [];
    }
    scale(axis, v) {
      const [low, high] = this.o[axis];
      if (!this.o.log.includes(axis)) return (v - low) / (high - low);
      return Math.log(Math.max(v, 1e-300) / low) / Math.log(high / low);
    }
    X(v) {
      return this.left + this.scale("x", v) * (this.right - this.left);
    }
    Y(v) {
      return this.bottom - this.scale("y", v) * (this.bottom - this.top);
    }
    at(px, py) {
      // the point under a pixel, on linear axes
      const [a, b] = this.o.x;
      const [c, d] = this.o.y;
      return [
        a + ((px - this.left) / (this.right - this.left)) * (b - a),
        c + ((this.bottom - py) / (this.bottom - this.top)) * (d - c),
      ];
    }
    px(p) {
      const keep = (v) => Math.max(-2e3, Math.min(4e3, v)).toFixed(1);
      return keep(this.X(p[0])) + " " + keep(this.Y(p[1]));
    }
    line(points, kind, close) {
      const seen = points.filter((p) => isFinite(p[0]) && isFinite(p[1]));
      if (seen.length > 1)
        this.marks.push(
          `<path class="${kind}" d="M${seen.map((p) => this.px(p)).join("L")}${close ? "Z" : ""}"/>`
        );
      return this;
    }
    dots(points, kind, r) {
      for (const p of points) {
        const [x, y] = this.px(p).split(" ");
        this.marks.push(`<circle class="${kind}" cx="${x}" cy="${y}" r="${r || 2.5}"/>`);
      }
      return this;
    }
    rect(x0, y0, x1, y1, kind) {
      const [l, t] = [this.X(x0), this.Y(y1)];
      this.under.push(
        `<rect class="${kind}" x="${l.toFixed(1)}" y="${t.toFixed(1)}"` +
          ` width="${(this.X(x1) - l).toFixed(1)}" height="${(this.Y(y0) - t).toFixed(1)}"/>`
      );
      return this;
    }
    vertical(x, kind, words, side) {
      const px = this.X(x).toFixed(1);
      this.under.push(
        `<line class="${kind}" x1="${px}" x2="${px}" y1="${this.top}" y2="${this.bottom}"/>`
      );
      if (words) this.text(x, null, words, "", side || "start", side === "end" ? -5 : 5, 14);
      return this;
    }
    horizontal(y, kind, words) {
      const py = this.Y(y).toFixed(1);
      this.under.push(
        `<line class="${kind}" x1="${this.left}" x2="${this.right}" y1="${py}" y2="${py}"/>`
      );
      if (words) this.text(this.o.x[1], y, words, "", "end", -4, -5);
      return this;
    }
    /* Words at a point, dx and dy pixels away; y null is the upper edge. */
    text(x, y, words, kind, anchor, dx, dy) {
      const px = this.X(x) + (dx || 0);
      const py = (y === null ? this.top : this.Y(y)) + (dy || 0);
      this.over.push(
        `<text class="${kind || ""}" x="${px.toFixed(1)}" y="${py.toFixed(1)}"` +
          ` text-anchor="${anchor || "start"}">${escape(words)}</text>`
      );
      return this;
    }
    axes() {
      const { o, left, right, top, bottom } = this;
      const out = [];
      if (o.bare) return "";
      const xs = o.log.includes("x")
        ? decades(...o.x, (right - left) / 60)
        : ticks(...o.x, (right - left) / 80);
      const ys = o.log.includes("y")
        ? decades(...o.y, (bottom - top) / 34)
        : ticks(...o.y, (bottom - top) / 40);
      for (const v of ys) {
        const y = this.Y(v).toFixed(1);
        out.push(`<line class="grid" x1="${left}" x2="${right}" y1="${y}" y2="${y}"/>`);
        out.push(`<text x="${left - 6}" y="${+y + 4}" text-anchor="end">${number(v)}</text>`);
      }
      for (const v of xs) {
        const x = this.X(v).toFixed(1);
        out.push(`<line class="grid" x1="${x}" x2="${x}" y1="${top}" y2="${bottom}"/>`);
        out.push(`<text x="${x}" y="${bottom + 16}" text-anchor="middle">${number(v)}</text>`);
      }
      if (o.xlabel)
        out.push(
          `<text class="axis" x="${right}" y="${bottom + 33}" text-anchor="end">${escape(o.xlabel)}</text>`
        );
      if (o.ylabel) out.push(`<text class="axis" x="2" y="13">${escape(o.ylabel)}</text>`);
      return out.join("");
    }
    draw() {
      const { svg, left, top, right, bottom } = this;
      const clip = svg.id + "-clip";
      svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
      let drawn = svg.querySelector(".drawn");
      if (!drawn) {
        drawn = document.createElementNS(svg.namespaceURI, "g");
        drawn.setAttribute("class", "drawn");
        drawn.setAttribute("aria-hidden", "true"); // the words under the drawing say what is seen
        svg.prepend(drawn);
      }
      drawn.innerHTML =
        `<clipPath id="${clip}"><rect x="${left}" y="${top}" width="${right - left}"` +
        ` height="${bottom - top}"/></clipPath>${this.axes()}` +
        `<g clip-path="url(#${clip})">${this.under.join("")}${this.marks.join("")}</g>` +
        this.over.join("");
      svg.plot = this;
      return this;
    }
  }

  // ---- a figure: inputs, drawings, words -------------------------------------------------------

  const SCALES = {
    "": (x) => x,
    degrees: (x) => x,
    log: (x) => +(10 ** x).toPrecision(3),
    memory: (x) => +(1 - 10 ** -x).toPrecision(4),
  };

  class Figure {
    constructor(root) {
      this.root = root;
      this.svgs = [...root.querySelectorAll(".play-drawing")];
      this.inputs = {};
      this.defaults = {};
      for (const el of root.querySelectorAll("input, select")) {
        this.inputs[el.dataset.key] = el;
        el.addEventListener("input", () => this.change());
      }
    }
    find(key) {
      return this.root.querySelector(`[data-key="${key}"]`);
    }
    value(key) {
      const el = this.inputs[key];
      return el.tagName === "SELECT" ? el.value : SCALES[el.dataset.scale](+el.value);
    }
    set(key, position) {
      this.inputs[key].value = position;
      this.change();
    }
    click(key, act) {
      this.find(key).addEventListener("click", act);
    }
    /* Show only the inputs of these kinds; those without a kind are always there. */
    show(...kinds) {
      for (const el of this.root.querySelectorAll("[data-kind]"))
        el.hidden = !kinds.includes(el.dataset.kind);
    }
    /* The words under the drawing change at once; a screen reader hears them when it is quiet. */
    say(words) {
      this.root.querySelector(".play-says").textContent = words;
      clearTimeout(this.later);
      this.later = setTimeout(() => {
        const live = this.root.querySelector(".play-live");
        if (live.textContent !== words) live.textContent = words;
      }, this.said ? 700 : 0);
      this.said = true;
    }
    change() {
      if (this.waiting) return;
      this.waiting = requestAnimationFrame(() => this.redraw());
    }
    redraw() {
      this.waiting = 0;
      for (const el of Object.values(this.inputs)) {
        if (el.tagName === "SELECT") continue;
        const x = this.value(el.dataset.key);
        const unit = el.dataset.scale === "degrees" ? "°" : "";
        const words = number(x, 4) + unit;
        el.parentNode.querySelector(".play-value").textContent = "= " + words;
        el.setAttribute("aria-valuetext", words);
      }
      this.draw();
    }
    plot(i, o) {
      return new Plot(this.svgs[i], o);
    }
    /* Run: the slider `key` goes from its lowest to its present value. */
    run(key, button, seconds) {
      const el = this.inputs[key];
      let goal = 0;
      this.click(button, () => {
        if (this.running) return this.stop(key);
        goal = +el.value || +el.max;
        const began = performance.now();
        this.find(button).textContent = "Stop";
        this.goal = goal;
        const frame = (now) => {
          const share = Math.min(1, (now - began) / 1000 / seconds);
          el.value = Math.round(goal * share);
          this.redraw();
          if (share < 1) this.running = requestAnimationFrame(frame);
          else this.stop(key);
        };
        this.running = requestAnimationFrame(frame);
      });
      el.addEventListener("pointerdown", () => this.running && this.stop(key));
      this.stop = () => {
        cancelAnimationFrame(this.running);
        this.running = 0;
        el.value = goal;
        this.find(button).textContent = "Run";
        this.change();
      };
    }
    /* A point in drawing i that is moved by mouse, finger or arrow keys.
       o: label, get() and set([x, y]); keys move it by a fortieth of the plot. */
    handle(i, o) {
      const svg = this.svgs[i];
      const knob = document.createElementNS(svg.namespaceURI, "g");
      const names = { class: "play-knob", tabindex: 0, role: "slider", "aria-label": o.label };
      for (const key in names) knob.setAttribute(key, names[key]);
      knob.innerHTML = '<circle class="play-reach" r="22"/><circle class="play-grip" r="8"/>';
      svg.append(knob);
      const put = (p) => {
        const { x, y } = svg.plot.o;
        const inside = (v, [low, high]) => Math.max(low, Math.min(high, v));
        o.set([inside(p[0], x), inside(p[1], y)].map((v) => +v.toPrecision(3)));
        this.change();
      };
      const under = (e) => {
        const box = svg.getBoundingClientRect();
        return svg.plot.at(e.clientX - box.left, e.clientY - box.top);
      };
      knob.addEventListener("keydown", (e) => {
        const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[e.key];
        if (!way || e.ctrlKey || e.metaKey || e.altKey) return;
        e.preventDefault();
        const size = (range) => ((range[1] - range[0]) / 40) * (e.shiftKey ? 4 : 1);
        const p = o.get();
        put([p[0] + way[0] * size(svg.plot.o.x), p[1] + way[1] * size(svg.plot.o.y)]);
      });
      // a finger on the point moves the point, not the page
      knob.addEventListener("touchstart", (e) => e.preventDefault(), { passive: false });
      knob.addEventListener("pointerdown", (e) => {
        e.preventDefault();
        knob.focus({ preventScroll: true });
        knob.setPointerCapture(e.pointerId);
        this.dragging = true;
      });
      knob.addEventListener("pointermove", (e) => this.dragging && put(under(e)));
      for (const end of ["pointerup", "pointercancel"])
        knob.addEventListener(end, () => (this.dragging = false));
      svg.addEventListener("click", (e) => knob.contains(e.target) || put(under(e)));
      this.knob = () => {
        const p = o.get();
        knob.setAttribute("transform", `translate(${svg.plot.px(p)})`);
        knob.setAttribute("aria-valuemin", svg.plot.o.x[0]);
        knob.setAttribute("aria-valuemax", svg.plot.o.x[1]);
        knob.setAttribute("aria-valuenow", p[0]);
        knob.setAttribute("aria-valuetext", `x ${number(p[0])}, y ${number(p[1])}`);
      };
    }
  }

  /* make(fig) prepares a figure and returns the function that draws it. */
  function figure(name, make) {
    for (const root of document.querySelectorAll(`[data-play="${name}"]`)) {
      const fig = new Figure(root);
      fig.draw = make(fig);
      root.classList.add("play-on");
      fig.redraw();
      new ResizeObserver(() => fig.change()).observe(root);
    }
  }

  /* The ellipses of a quadratic with these curvatures, turned by an angle, or any closed lines. */
  function ellipse(curvatures, level, angle) {
    const [a, b] = curvatures.map((c) => Math.sqrt((2 * level) / c));
    const points = [];
    for (let k = 0; k < 72; k++) {
      const u = (k * Math.PI) / 36;
      points.push(turn([a * Math.cos(u), b * Math.sin(u)], angle || 0));
    }
    return points;
  }

  function turn(p, angle) {
    const [c, s] = [Math.cos(angle), Math.sin(angle)];
    return [c * p[0] - s * p[1], s * p[0] + c * p[1]];
  }

  return { sgd, momentum, adam, walk, schedulers, trace, normals, number, figure, ellipse, turn };
})();
