/* Momentum in the ravine f = (x² + 50 y²) / 2, and the eigenvalues of one step: for a curvature c
   they solve z² - (1 + β - η c) z + β = 0. */
Play.figure("ravine", function (fig) {
  const curvatures = [1, 50];
  const names = ["along the floor", "across"];
  let start = [10, 1.5];
  const value = (p) => (curvatures[0] * p[0] ** 2 + curvatures[1] * p[1] ** 2) / 2;
  fig.handle(0, { label: "start of the walk", get: () => start, set: (p) => (start = p) });
  fig.run("steps", "run", 3);
  fig.click("best", function () {
    const root = Math.sqrt(curvatures[1]);
    fig.set("lr", (2 / (root + 1)) ** 2);
    fig.set("beta", ((root - 1) / (root + 1)) ** 2);
  });

  function eigenvalues(lr, beta, c) {
    const sum = 1 + beta - lr * c;
    const inside = sum * sum / 4 - beta;
    const root = Math.sqrt(Math.abs(inside));
    return inside < 0 ? [[sum / 2, root], [sum / 2, -root]] : [[sum / 2 + root, 0], [sum / 2 - root, 0]];
  }

  function manner(zs, beta) {
    const size = Math.max(...zs.map((z) => Math.hypot(...z)));
    if (size > 1 + 1e-9) return "is thrown out";
    if (size > 1 - 1e-9) return "neither grows nor shrinks";
    if (zs[0][1] !== 0) return "swings";
    return zs[1][0] < 0 && Math.abs(zs[1][0]) >= Math.abs(zs[0][0]) ? "flips" : "creeps";
  }

  return function () {
    const [lr, beta, steps] = ["lr", "beta", "steps"].map((key) => fig.value(key));
    const gradient = (p) => p.map((x, i) => curvatures[i] * x);
    const points = Play.walk(Play.momentum, { lr, beta }, gradient, start, steps);

    const bowl = fig.plot(0, { x: [-11, 11], y: [-2.6, 2.6] });
    for (const level of [1, 4, 10, 20, 40, 70, 110, 160])
      bowl.line(Play.ellipse(curvatures, level), "level", true);
    bowl.line(points, "way way-1").dots(points, "dot dot-1").dots([[0, 0]], "goal", 4).draw();
    fig.knob();

    const zs = curvatures.map((c) => eigenvalues(lr, beta, c));
    const sizes = zs.map((pair) => Math.max(...pair.map((z) => Math.hypot(...z))));
    const circle = (r) => Array.from({ length: 90 }, (_, k) => [r * Math.cos((k * Math.PI) / 45), r * Math.sin((k * Math.PI) / 45)]);
    const plane = fig.plot(1, { x: [-1.3, 1.3], y: [-1.3, 1.3], bare: true });
    plane.line([[-1.3, 0], [1.3, 0]], "level").line([[0, -1.3], [0, 1.3]], "level");
    plane.line(circle(1), "limit", true).text(0.72, 0.72, "1", "", "start", 5, -4);
    if (beta > 0.02)
      plane.line(circle(Math.sqrt(beta)), "guide", true).text(0, Math.sqrt(beta), "√β", "", "start", 5, -4);
    zs.forEach((pair, i) => {
      // one that is far out is drawn at the edge
      plane.dots(pair.map((z) => z.map((v) => Math.max(-1.26, Math.min(1.26, v)))), `now dot-${i + 2}`, 6);
    });
    plane.text(-1.3, -1.3, names[0], "ink-2", "start", 6, -22).text(-1.3, -1.3, names[1], "ink-3", "start", 6, -7);
    plane.draw();

    const n = Play.number;
    const words = names.map((name, i) => `${name} it ${manner(zs[i], beta)} (factor ${n(sizes[i])})`);
    const end = points[points.length - 1];
    const fate = Math.max(...sizes) < 1 - 1e-9
      ? `The slower of the two decides: ${n(Math.max(...sizes))} per step.`
      : `An eigenvalue is not inside the unit circle: no convergence.`;
    fig.say(
      `${words[0][0].toUpperCase()}${words[0].slice(1)}, ${words[1]}. ${fate} ` +
        `After ${steps} steps the loss is ${n(value(end))}, from ${n(value(start))}.`
    );
  };
});
