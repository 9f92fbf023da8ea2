/* One copy button for each side of a panel: all its lines, without numbers and notes. */
document.addEventListener("DOMContentLoaded", function () {
  document.querySelectorAll(".panel-side").forEach(function (side) {
    if (!navigator.clipboard) return;
    var button = document.createElement("button");
    button.type = "button";
    button.className = "panel-copy";
    button.textContent = "Copy";
    button.addEventListener("click", function () {
      var lines = side.querySelectorAll(".panel-line");
      var text = Array.from(lines, function (line) { return line.textContent; }).join("");
      navigator.clipboard.writeText(text).then(function () {
        button.textContent = "Copied";
        setTimeout(function () { button.textContent = "Copy"; }, 1500);
      });
    });
    side.querySelector(".panel-caption").appendChild(button);
  });
});
