/* One copy button for each side of a panel: all its lines, without numbers and notes. And what is
   folded opens for a link into it and for the printer. */
document.addEventListener("DOMContentLoaded", function () {
  function copy(text) {
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    var area = document.createElement("textarea"); // where a page is served without encryption
    area.value = text;
    area.style.position = "fixed";
    document.body.appendChild(area);
    area.select();
    var done = document.execCommand("copy");
    area.remove();
    return done ? Promise.resolve() : Promise.reject();
  }

  document.querySelectorAll(".panel-side").forEach(function (side) {
    var caption = side.querySelector(".panel-caption");
    var button = document.createElement("button");
    button.type = "button";
    button.className = "panel-copy";
    button.textContent = "Copy";
    button.setAttribute("aria-label", "Copy " + caption.querySelector("code").textContent);
    button.addEventListener("click", function () {
      var lines = side.querySelectorAll(".panel-line");
      var text = Array.from(lines, function (line) { return line.textContent; }).join("");
      copy(text).then(
        function () { button.textContent = "Copied"; },
        function () { button.textContent = "Not copied"; }
      ).then(function () {
        setTimeout(function () { button.textContent = "Copy"; }, 1500);
      });
    });
    caption.appendChild(button);
  });

  window.addEventListener("beforeprint", function () {
    document.querySelectorAll(".panel-fold").forEach(function (fold) { fold.open = true; });
  });
});
