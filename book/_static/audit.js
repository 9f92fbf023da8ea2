/* The filter of the page of claims. Without this script all claims are shown, and no filter. */
document.addEventListener("DOMContentLoaded", function () {
  var form = document.getElementById("audit-filter");
  if (!form) return;
  var verdict = document.getElementById("audit-verdict");
  var page = document.getElementById("audit-page");
  var status = document.getElementById("audit-status");
  var rows = Array.from(document.querySelectorAll(".audit-row"));
  var sections = new Set(rows.map(function (row) { return row.closest("section"); }));

  function shown(row) {
    return (!verdict.value || row.dataset.verdict === verdict.value) &&
      (!page.value || row.dataset.page === page.value);
  }

  function apply() {
    var count = 0;
    rows.forEach(function (row) {
      row.hidden = !shown(row);
      count += !row.hidden;
    });
    sections.forEach(function (section) { // a heading without a claim under it
      section.hidden = !section.querySelector(".audit-row:not([hidden])");
    });
    status.textContent = count + " of " + rows.length + " claims shown.";
  }

  function reach() { // a link to a claim that is not shown shows all
    var row = document.getElementById(location.hash.slice(1));
    if (row && row.closest("[hidden]")) {
      form.reset();
      apply();
      row.scrollIntoView();
    }
  }

  form.hidden = false;
  form.addEventListener("change", apply);
  form.addEventListener("submit", function (event) { event.preventDefault(); });
  form.addEventListener("reset", function () { setTimeout(apply); });
  window.addEventListener("hashchange", reach);
  form.reset(); // a browser may remember the choice of the last visit
  apply();
});
