// The pictures of the page: content, style and result, the mask on the content, and the comparing slider. What the server
// says arrives as props; what is wanted of it leaves as the events "ask" (a picture for the controls as they stand), "paint" (a new mask) and "drop" (a
// file of one's own). The template is static, so the elements found here stay.
const $ = (selector) => element.querySelector(selector);
const [rows, columns] = props.map;
const cells = $(".cells");
const side = () => $(".sides input:checked").value;

// ---- pictures ------------------------------------------------------------------------------------------------------

function put(image, url) {
  if (url) image.src = url;
  else image.removeAttribute("src");
}

function compare() {
  put($(".over"), props[side()]);
  put($(".under"), props.result);
  $(".compare").style.setProperty("--x", `${$(".share").value}%`);
}

function draw() {
  for (const name of ["content", "style", "result"]) put($(`.${name} img`), props[name]);
  $("progress").value = props.share;
  $(".note").textContent = props.note;
  element.dataset.state = props.share < 1 ? "going" : "made";
  if (props.file) {
    $(".save").href = props.result;
    $(".save").download = props.file;
  } else {
    $(".save").removeAttribute("href");
  }
  compare();
}

watch(["content", "style", "result", "share", "note", "file"], draw);
$(".share").addEventListener("input", compare);
$(".sides").addEventListener("change", compare);
$(".compare").addEventListener("pointermove", (event) => {
  if (event.pointerType === "mouse" && !event.buttons) return;
  const box = $(".compare").getBoundingClientRect();
  $(".share").value = (100 * (event.clientX - box.left)) / box.width;
  compare();
});

// ---- files of one's own --------------------------------------------------------------------------------------------

async function take(name, file) {
  if (!file) return;
  $(".note").textContent = `reading ${file.name}`;
  try {
    const { path } = await upload(file);
    trigger("drop", { side: name, path });
  } catch (error) {
    $(".note").textContent = `${file.name} was not taken: ${error.message}`;
  }
}

for (const name of ["content", "style"]) {
  const figure = $(`.${name}`);
  const input = figure.querySelector("input");
  input.addEventListener("change", () => {
    take(name, input.files[0]);
    input.value = ""; // so that the same file can be chosen again
  });
  figure.addEventListener("dragover", (event) => event.preventDefault());
  figure.addEventListener("drop", (event) => {
    event.preventDefault();
    take(name, event.dataTransfer.files[0]);
  });
}

// ---- the mask: one button a cell of h, painted by pointer or by arrow keys and space ----------------------------------

let value = true; // what the stroke paints
let stroke = false;

cells.style.setProperty("--columns", columns);
for (let i = 0; i < rows * columns; i++) {
  const cell = document.createElement("button");
  cell.type = "button";
  cell.tabIndex = i ? -1 : 0; // one tab stop; arrow keys do the rest
  cell.setAttribute("aria-label", `row ${Math.floor(i / columns) + 1}, column ${(i % columns) + 1}`);
  cell.setAttribute("aria-pressed", "false");
  cells.append(cell);
}
const all = [...cells.children];
const painted = (cell) => cell.getAttribute("aria-pressed") === "true";
const paint = (cell, on) => cell.setAttribute("aria-pressed", String(on));

function tell() {
  const bits = all.map((cell) => (painted(cell) ? "1" : "0")).join("");
  $(".clear").hidden = !bits.includes("1");
  trigger("paint", { cells: bits.match(new RegExp(`.{${columns}}`, "g")).join("/") });
}

cells.addEventListener("pointerdown", (event) => {
  const cell = all.find((each) => each === event.target);
  if (!cell) return;
  stroke = true;
  value = !painted(cell);
  paint(cell, value);
  event.target.releasePointerCapture(event.pointerId); // a touch would stay with its first cell
});
cells.addEventListener("pointermove", (event) => {
  const cell = stroke && all.find((each) => each === document.elementFromPoint(event.clientX, event.clientY));
  if (cell) paint(cell, value);
});
for (const end of ["pointerup", "pointercancel"]) {
  window.addEventListener(end, () => {
    if (stroke) tell();
    stroke = false;
  });
}
cells.addEventListener("keydown", (event) => {
  const at = all.indexOf(document.activeElement);
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
  if (at < 0 || !(step || event.key === " " || event.key === "Enter")) return;
  event.preventDefault();
  if (!step) {
    paint(all[at], !painted(all[at]));
    tell();
  } else if (all[at + step]) {
    all[at].tabIndex = -1;
    all[at + step].tabIndex = 0;
    all[at + step].focus();
  }
});
$(".brush").addEventListener("click", () => {
  cells.hidden = !cells.hidden;
  $(".brush").setAttribute("aria-pressed", String(!cells.hidden));
});
$(".clear").addEventListener("click", () => {
  all.forEach((cell) => paint(cell, false));
  tell();
});

// ---- for the controls beside it ------------------------------------------------------------------------------------

let timer;
window.diffstyle = {
  // A slider on its way says so at every pixel: ask when it has rested for a moment.
  ask() {
    clearTimeout(timer);
    timer = setTimeout(() => trigger("ask"), 80);
  },
  async copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      $(".note").textContent = "The command line is copied.";
    } catch {
      $(".note").textContent = "The browser does not allow copying: select the command line and copy it.";
    }
  },
};
draw();
