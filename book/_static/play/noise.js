/* A schedule on f = x² / 2 with noisy gradients: thirty runs, and the exact mean square,
   v → (1 - η)² v + η² σ². */
Play.figure("noise", function (fig) {
  const steps = 200;
  const start = 3;
  let seed = 1;
  fig.click("again", function () {
    seed += 1;
    fig.change();
  });
  document.addEventListener("play-designed", () => fig.value("schedule") === "designed" && fig.change());

  function plan(kind, lr) {
    const alone = (name, options) => Play.trace({ lr, join: "", parts: [{ kind: name, options }] }, steps - 1);
    if (kind === "StepLR") return alone(kind, { step_size: 50, gamma: fig.value("drop") });
    if (kind === "ExponentialLR") return alone(kind, { gamma: fig.value("gamma") });
    if (kind === "CosineAnnealingLR") return alone(kind, { T_max: steps, eta_min: 0 });
    if (kind === "1/t") return Array.from({ length: steps }, (_, t) => Math.min(lr, 1 / (t + 1)));
    if (kind === "designed" && Play.designed) return Play.trace({ ...Play.designed, lr }, steps - 1);
    return Array(steps).fill(lr);
  }

  return function () {
    const kind = fig.value("schedule");
    const sigma = fig.value("sigma");
    fig.show({ StepLR: "drop", ExponentialLR: "gamma" }[kind] || "");
    const rates = plan(kind, fig.value("lr"));
    const square = [start * start];
    for (const lr of rates) square.push((1 - lr) ** 2 * square[square.length - 1] + (lr * sigma) ** 2);
    const draw = Play.normals(seed);
    const runs = Array.from({ length: 30 }, function () {
      const x = [start];
      for (const lr of rates) x.push(Play.sgd([x[x.length - 1]], [x[x.length - 1] + sigma * draw()], {}, { lr })[0]);
      return x.map((y, t) => [t, y]);
    });

    const above = fig.plot(0, { x: [0, steps], y: [0, Math.max(...rates) * 1.15 || 1], ylabel: "learning rate" });
    above.line(rates.map((lr, t) => [t, lr]), "way way-2").draw();
    const below = fig.plot(1, { x: [0, steps], y: [-2, 3.2], xlabel: "step t", ylabel: "x, thirty runs" });
    // around the mean, which falls by the product of all 1 - η
    let mean = start;
    const means = [start, ...rates.map((lr) => (mean *= 1 - lr))];
    const spread = square.map((v, t) => Math.sqrt(Math.max(0, v - means[t] ** 2)));
    const upper = means.map((m, t) => [t, m + spread[t]]);
    const lower = means.map((m, t) => [t, m - spread[t]]).reverse();
    runs.forEach((run) => below.line(run, "hair"));
    below.line(upper.concat(lower), "band", true).horizontal(0, "guide").draw();

    const n = Play.number;
    const first = rates[0];
    fig.say(
      `After ${steps} steps the mean of x² is ${n(square[steps])}. ` +
        `A constant rate of ${n(first)} would hover at ${n((first / (2 - first)) * sigma ** 2)}; ` +
        `no schedule does better than about σ²/${steps} = ${n(sigma ** 2 / steps)}. ` +
        `The rates add up to ${n(rates.reduce((a, b) => a + b, 0))}.`
    );
  };
});
