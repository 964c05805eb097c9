// A button on every block of code that copies it, without the output of notebooks.
document.addEventListener("DOMContentLoaded", () => {
  if (!navigator.clipboard) return; // pages opened as files, in some browsers
  document.querySelectorAll("div.highlight").forEach((block) => {
    if (block.closest(".cell_output")) return;
    const button = document.createElement("button");
    button.className = "copy-code";
    button.textContent = "copy";
    button.title = "copy this code";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(block.querySelector("pre").textContent.trimEnd());
      button.textContent = "copied";
      setTimeout(() => (button.textContent = "copy"), 1200);
    });
    block.append(button);
  });
});
