/* SGD and Adam from one start, on a ravine that can be turned or in Rosenbrock's curved valley. */
Play.figure("race", function (fig) {
  const curvatures = [1, 50];
  const ravine = {
    y: [-6, 6], equal: true, start: [5.2, 1.2], sgd: -1.42, adam: -0.52, steps: 60,
    levels: [0.5, 2, 6, 14, 30, 60, 120, 220, 400],
    local: (p) => Play.turn(p, -angle()),
    value(p) {
      const q = this.local(p);
      return (curvatures[0] * q[0] ** 2 + curvatures[1] * q[1] ** 2) / 2;
    },
    gradient(p) {
      return Play.turn(this.local(p).map((x, i) => curvatures[i] * x), angle());
    },
    contour: (level) => Play.ellipse(curvatures, level, angle()),
    goal: [0, 0],
  };
  const valley = {
    x: [-2, 2], y: [-1, 3], start: [-1.5, 2], sgd: -2.06, adam: -1, steps: 200,
    levels: [0.1, 0.5, 2, 5, 12, 30, 60],
    value: (p) => (1 - p[0]) ** 2 + 10 * (p[1] - p[0] ** 2) ** 2,
    gradient(p) {
      const across = 20 * (p[1] - p[0] ** 2);
      return [2 * (p[0] - 1) - 2 * p[0] * across, across];
    },
    contour(level) {
      // at a given x the two heights are known: up one side, back on the other
      const sides = [[], []];
      for (let k = 0; k <= 80; k++) {
        const x = 1 - Math.sqrt(level) * Math.cos((k * Math.PI) / 80);
        const reach = Math.sqrt(Math.max(0, level - (1 - x) ** 2) / 10);
        sides[0].push([x, x * x + reach]);
        sides[1].unshift([x, x * x - reach]);
      }
      return sides[0].concat(sides[1]);
    },
    goal: [1, 1],
  };
  const angle = () => (fig.value("tilt") * Math.PI) / 180;
  const surface = () => (fig.value("surface") === "ravine" ? ravine : valley);
  let start = ravine.start;
  let turned = 0;
  fig.handle(0, {
    label: "start of both walks",
    get: () => start,
    // in the ravine within a disc, so that it can be turned with the ravine
    set: (p) => (start = surface() === ravine ? p.map((x) => x * Math.min(1, 5.6 / Math.hypot(...p))) : p),
  });
  fig.inputs.tilt.addEventListener("input", function () {
    start = Play.turn(start, angle() - turned);
    turned = angle();
  });
  fig.run("steps", "run", 3);
  fig.inputs.surface.addEventListener("input", function () {
    const f = surface();
    start = f === ravine ? Play.turn(f.start, angle()) : f.start;
    for (const key of ["sgd", "adam", "steps"]) fig.inputs[key].value = f[key];
  });

  return function () {
    const f = surface();
    const steps = fig.value("steps");
    fig.show(f === ravine ? "ravine" : "");
    const gradient = (p) => f.gradient(p);
    const ways = [
      Play.walk(Play.sgd, { lr: fig.value("sgd") }, gradient, start, steps),
      Play.walk(Play.adam, { lr: fig.value("adam"), beta1: 0.9, beta2: 0.999, eps: 1e-8 }, gradient, start, steps),
    ];
    const map = fig.plot(0, { x: f.x, y: f.y, equal: f.equal });
    for (const level of f.levels) map.line(f.contour(level), "level", true);
    map.dots([f.goal], "goal", 4);
    ways.forEach((way, i) => map.line(way, `way way-${i + 1}`).dots(way, `dot dot-${i + 1}`, 2));
    map.draw();
    fig.knob();

    const losses = ways.map((way) => way.map((p) => f.value(p)));
    const first = Math.max(losses[0][0], 1e-3);
    const fall = fig.plot(1, {
      x: [0, Math.max(10, steps)], y: [first * 1e-7, first * 30], log: "y", xlabel: "step t", ylabel: "loss",
    });
    losses.forEach((loss, i) => {
      fall.line(loss.map((y, t) => [t, Math.max(y, first * 1e-8)]), `way way-${i + 1}`);
    });
    fall.text(fall.o.x[1], fall.o.y[1], "SGD", "ink-1", "end", -60, 14).text(fall.o.x[1], fall.o.y[1], "Adam", "ink-2", "end", -6, 14);
    fall.draw();

    const n = Play.number;
    const end = losses.map((loss, i) => (ways[i].length > steps && loss[loss.length - 1] < 1e6 * first ? n(loss[loss.length - 1]) : "beyond all bounds"));
    const g = f.gradient(start);
    fig.say(
      `At the start the gradient is (${n(g[0])}, ${n(g[1])}); loss ${n(losses[0][0])}. ` +
        `After ${steps} steps SGD is at ${end[0]}, Adam at ${end[1]}.`
    );
  };
});
