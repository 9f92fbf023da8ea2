/* A schedule of one or two schedulers, its curve, and the PyTorch code that produces it. */
Play.figure("designer", function (fig) {
  const NAMES = {
    LinearLR: ["start_factor", "end_factor", "total_iters"],
    StepLR: ["step_size", "gamma"],
    MultiStepLR: ["milestone1", "milestone2", "gamma"],
    ExponentialLR: ["gamma"],
    CosineAnnealingLR: ["T_max", "eta_min"],
  };

  function part(slot) {
    const kind = fig.value(slot + "kind");
    const options = {};
    for (const name of NAMES[kind]) options[name] = fig.value(`${slot}${kind}-${name}`);
    if (kind === "MultiStepLR") {
      const { milestone1, milestone2, gamma } = options;
      return { kind, options: { milestones: [milestone1, milestone2].sort((a, b) => a - b), gamma } };
    }
    return { kind, options };
  }

  function design() {
    const join = (fig.value("join").match(/\((\w+)\)/) || ["", ""])[1];
    const parts = join ? [part("a"), part("b")] : [part("a")];
    return { lr: fig.value("lr"), join, milestone: fig.value("milestone"), parts };
  }

  /* A call, on one line if it fits. */
  function call(name, things) {
    const line = `lr_scheduler.${name}(${things.join(", ")})`;
    return line.length <= 60 ? line : `lr_scheduler.${name}(\n    ${things.join(", ")}\n)`;
  }

  function made(p) {
    const show = (v) => (Array.isArray(v) ? `[${v.join(", ")}]` : String(v));
    const options = Object.entries(p.options).map(([name, v]) => `${name}=${show(v)}`);
    return call(p.kind, ["optimizer", ...options]);
  }

  function code(d, steps) {
    const lines = ["import torch", "from torch.optim import lr_scheduler", ""];
    lines.push(`optimizer = torch.optim.SGD(model.parameters(), lr=${d.lr})`);
    if (d.join) {
      lines.push(`first = ${made(d.parts[0])}`, `second = ${made(d.parts[1])}`);
      const things = d.join === "SequentialLR"
        ? ["optimizer", "[first, second]", `milestones=[${d.milestone}]`]
        : ["[first, second]", "optimizer"];
      lines.push(`scheduler = ${call(d.join, things)}`);
    } else {
      lines.push(`scheduler = ${made(d.parts[0])}`);
    }
    lines.push("", `for step in range(${steps}):`, "    ...  # forward, backward");
    lines.push("    optimizer.step()", "    scheduler.step()");
    return lines.join("\n") + "\n";
  }

  Play.design = design;
  Play.code = code;

  fig.click("copy", function () {
    const button = fig.find("copy");
    const pre = fig.find("code");
    const done = (words) => {
      button.textContent = words;
      setTimeout(() => (button.textContent = "Copy"), 1500);
    };
    const range = document.createRange();
    range.selectNodeContents(pre);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    const byHand = () => done(document.execCommand("copy") ? "Copied" : "Selected");
    if (!navigator.clipboard) return byHand();
    navigator.clipboard.writeText(pre.textContent).then(() => done("Copied"), byHand);
  });

  return function () {
    const d = design();
    const steps = fig.value("steps");
    const takesOver = d.join === "SequentialLR" ? "takes over" : "";
    fig.show("a" + d.parts[0].kind, d.parts[1] ? "b" + d.parts[1].kind : "", takesOver);
    fig.inputs.bkind.disabled = !d.join;
    const rates = Play.trace(d, steps);
    const top = Math.max(...rates);
    const lowest = Math.min(...rates);
    const plot = fig.plot(0, { x: [0, steps], y: [0, top * 1.1 || 1], xlabel: "steps t", ylabel: "learning rate" });
    if (d.join === "SequentialLR" && d.milestone <= steps) {
      const late = d.milestone > 0.8 * steps;
      plot.vertical(d.milestone, "guide");
      plot.text(d.milestone, 0, "milestone", "", late ? "end" : "start", late ? -5 : 5, -6);
    }
    plot.line(rates.map((lr, t) => [t, lr]), "way way-1").draw();
    fig.find("code").textContent = code(d, steps);
    const n = Play.number;
    fig.say(
      `The rate begins at ${n(rates[0])}, is highest at step ${rates.indexOf(top)} with ${n(top)}, ` +
        `lowest at step ${rates.indexOf(lowest)} with ${n(lowest)}, and ends at ${n(rates[steps])}.`
    );
    Play.designed = d;
    document.dispatchEvent(new Event("play-designed"));
  };
});
