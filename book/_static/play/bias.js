/* The length of Adam's steps, in units of lr, with and without the division by 1 - β^t. */
Play.figure("bias", function (fig) {
  const last = 5000;

  return function () {
    const [beta1, beta2, noise] = ["beta1", "beta2", "noise"].map((key) => fig.value(key));
    const lengths = [true, false].map(function (hats) {
      const draw = Play.normals(7);
      const gradient = () => [1 + noise * draw()];
      const points = Play.walk(Play.adam, { lr: 1, beta1, beta2, eps: 1e-12, hats }, gradient, [0], last);
      return points.slice(1).map((p, i) => [i + 1, points[i][0] - p[0]]);
    });
    const heights = lengths[1].map((p) => p[1]);
    const top = Math.max(...heights);
    const when = heights.indexOf(top) + 1;
    const high = Math.max(2, Math.ceil(top * 1.15));
    const plot = fig.plot(0, {
      x: [1, last], y: [noise ? -high / 3 : 0, high], log: "x", xlabel: "step t", ylabel: "step / lr",
    });
    plot.horizontal(1, "guide");
    // on a logarithmic axis later steps lie ever closer
    const seen = (line) => line.filter((p, i) => i < 60 || i % Math.ceil(i / 60) === 0);
    plot.line(seen(lengths[1]), "way way-2").line(seen(lengths[0]), "way way-1");
    plot.dots([[when, top]], "now dot-2", 5);
    const right = when > 200;
    plot.text(when, top, "without correction", "ink-2", right ? "end" : "start", right ? -10 : 10, 2);
    plot.text(last, 1, "with correction", "ink-1", "end", -4, 18);
    plot.draw();

    const n = Play.number;
    let late = heights.length;
    while (late > 0 && Math.abs(heights[late - 1] - lengths[0][late - 1][1]) < 0.05) late--;
    fig.say(
      `The first step is ${n(lengths[0][0][1])} lr with correction and ${n(heights[0])} lr without. ` +
        `Without it the longest step is ${n(top)} lr, at step ${when}; ` +
        (late === 0 ? "the two never differ by 0.05 lr."
          : late < last ? `the two agree to 0.05 lr from step ${late + 1} on.`
          : `after ${last} steps the two still differ by more than 0.05 lr.`)
    );
  };
});
