/* Gradient descent on f = (x² + 10 y²) / 2, and the factor of one step against its length. */
Play.figure("descent", function (fig) {
  const curvatures = [1, 10];
  const limit = 2 / 10;
  const best = 2 / 11;
  let start = [10, 2];
  const value = (p) => (curvatures[0] * p[0] ** 2 + curvatures[1] * p[1] ** 2) / 2;
  fig.handle(0, { label: "start of the walk", get: () => start, set: (p) => (start = p) });
  fig.run("steps", "run", 2.5);

  return function () {
    const lr = fig.value("lr");
    const steps = fig.value("steps");
    const gradient = (p) => p.map((x, i) => curvatures[i] * x);
    const points = Play.walk(Play.sgd, { lr }, gradient, start, steps);
    const end = points[points.length - 1];

    const bowl = fig.plot(0, { x: [-11, 11], y: [-4, 4] });
    for (const level of [0.5, 2, 5, 10, 20, 35, 55, 80])
      bowl.line(Play.ellipse(curvatures, level), "level", true);
    bowl.line(points, "way way-1").dots(points, "dot dot-1").dots([[0, 0]], "goal", 4).draw();
    fig.knob();

    const sizes = curvatures.map((c) => Math.abs(1 - lr * c));
    const rate = fig.plot(1, {
      x: [0, 0.25], y: [0, 1.6], xlabel: "learning rate η", ylabel: "factor per step",
    });
    rate.rect(limit, 0, 0.25, 1.6, "forbidden").horizontal(1, "guide");
    rate.vertical(best, "guide", "best", "end").vertical(limit, "limit", "2/L");
    rate.line([[0, 1], [0.25, 0.75]], "thin way-2").line([[0, 1], [0.1, 0], [0.25, 1.5]], "thin way-3");
    rate.line([[0, 1], [best, 1 - best], [0.25, 1.5]], "way way-1");
    rate.text(0.02, 0.98, "flat", "ink-2", "start", 4, -6).text(0.12, 0.2, "steep", "ink-3", "start", 10, 4);
    rate.dots([[lr, Math.max(...sizes)]], "now", 6).draw();

    const n = Play.number;
    const factors = curvatures.map((c) => n(1 - lr * c));
    const verdict = lr > limit + 1e-12 ? `η is above 2/L = ${limit}: it diverges.`
      : Math.abs(lr - limit) < 1e-12 ? `η is 2/L = ${limit}: the steep coordinate flips for ever.`
      : `η is below 2/L = ${limit}: it converges, fastest at ${n(best)}.`;
    fig.say(
      `Each step multiplies the flat coordinate by ${factors[0]} and the steep one by ${factors[1]}. ` +
        `After ${steps} steps the loss is ${n(value(end))}, from ${n(value(start))}. ${verdict}`
    );
  };
});
