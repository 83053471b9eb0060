// The page: images in, answers out. What is known of an image is a record in `shown`; the cards
// follow from the records, the filters and the switches.

const AT_ONCE = 6; // requests; the server takes what comes together through the network together
const TRIES = 30; // of a request that was told to come again
const SORTED_MS = 1000; // from one sorting to the next while answers come

const $ = (id) => document.getElementById(id);
const shown = []; // {file, path, url, card, state: "asking" | "answered" | "wrong", answer, reason, maps}
let about = null; // what the server says of itself, once it has
let round = 0; // grows when the policy changes: answers of an earlier round are dropped
let running = 0;
let pasted = 0;

// --- the server ---

async function ask(path, options = {}) {
  for (let tried = 0; ; tried++) {
    const token = sessionStorage.getItem("token");
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch {
      throw new Error("The server did not answer. Is it running?");
    }
    if (response.ok) return response;
    if (response.status === 401) {
      await askForToken(token);
    } else if (response.status === 429 && tried < TRIES) {
      const seconds = Number(response.headers.get("Retry-After")) || 1;
      await new Promise((go) => setTimeout(go, seconds * 1000 * (0.5 + Math.random())));
    } else {
      const problem = await response.json().catch(() => ({}));
      const found = problem.found ? `: ${problem.found}` : "";
      throw new Error(`${problem.detail ?? response.statusText}${found}`);
    }
  }
}

let asking = null;
function askForToken(tried) {
  if (tried !== sessionStorage.getItem("token")) return null; // given meanwhile
  asking ??= new Promise((go) => {
    const dialog = $("ask");
    $("ask-again").hidden = !tried;
    dialog.showModal();
    dialog.oncancel = (event) => event.preventDefault();
    dialog.onclose = () => asking && !dialog.open && dialog.showModal(); // a second Escape closes
    dialog.querySelector("form").onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem("token", $("token").value.trim());
      asking = null;
      dialog.close();
      go();
    };
  });
  return asking;
}

function form(name, one) {
  const data = new FormData();
  data.append(name, one.file, one.path);
  return data;
}

// --- images come ---

async function add(coming) {
  await asked;
  for (const { file, path } of await coming) {
    const card = $("card").content.firstElementChild.cloneNode(true);
    const one = { file, path, card, url: URL.createObjectURL(file), maps: new Map(), state: "new" };
    const plain = card.querySelector(".plain");
    plain.onerror = () => card.classList.add("unseen");
    plain.src = one.url;
    plain.alt = path;
    const name = document.createElement("bdi");
    name.textContent = path;
    card.querySelector(".path").append(name);
    card.querySelector(".path").title = path;
    card.record = one;
    shown.push(one);
    $("gallery").append(card);
    visible.observe(card);
    again(one);
  }
  show();
  fill();
}

function again(one) {
  Object.assign(one, { state: "new", answer: null, reason: null, again: false });
}

function fill() {
  while (running < AT_ONCE) {
    const one = shown.find((each) => each.state === "new");
    if (!one) return;
    running++;
    one.state = "asking";
    answer(one, round).finally(() => {
      running--;
      fill();
    });
  }
}

async function answer(one, mine) {
  draw(one);
  let found = {};
  try {
    if (one.file.size > about.most_mb * 1e6) {
      throw new Error(`${(one.file.size / 1e6).toFixed(1)} MB, and at most ${about.most_mb} MB are taken`);
    }
    const query = new URLSearchParams({ tta: $("tta").value });
    const response = await ask(`api/predict?${query}`, { method: "POST", body: form("images", one) });
    const [said] = (await response.json()).answers;
    found = said.error ? { state: "wrong", reason: said.error } : { state: "answered", answer: said };
  } catch (error) {
    found = { state: "wrong", reason: error.message, again: true };
  }
  if (mine !== round || !shown.includes(one)) return;
  Object.assign(one, found);
  draw(one);
  showSoon();
}

const named = (file) => ({ file, path: file.webkitRelativePath || file.name });
const isImage = ({ path }) =>
  !/(^|\/)\./.test(path) && about.endings.some((ending) => path.toLowerCase().endsWith(ending));
const inOrder = (files) => files.sort((a, b) => (a.path < b.path ? -1 : 1));

async function below(entry) {
  if (entry.isFile) {
    const file = await new Promise((go, stop) => entry.file(go, stop));
    return [{ file, path: entry.fullPath.replace(/^\//, "") }];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((go, stop) => reader.readEntries(go, stop));
    if (!some.length) return found;
    for (const one of some) found.push(...(await below(one)));
  }
}

async function dropped(transfer) {
  // Entries and files are there during the event alone.
  const entries = [...transfer.items].filter((one) => one.kind === "file").map((one) => one.webkitGetAsEntry?.());
  const files = [...transfer.files];
  const folders = entries.filter((one) => one?.isDirectory);
  if (!folders.length) return files.map(named);
  const found = (await Promise.all(folders.map(below))).flat();
  await asked; // it says what an image's name ends with
  const beside = files.filter((_, i) => !entries[i]?.isDirectory).map(named);
  return [...beside, ...inOrder(found.filter(isImage))];
}

// --- what is shown ---

const percent = (share) => `${(100 * share).toFixed(1)} %`;
const certainty = (one) => one.answer?.top[0]?.probability ?? -1;

function draw(one) {
  const { card, state, answer: said } = one;
  card.setAttribute("aria-busy", state === "asking");
  card.classList.toggle("unsure", Boolean(said?.unsure));
  card.classList.toggle("wrong", state === "wrong");
  card.querySelector(".answer").textContent =
    state === "wrong" ? "no answer" : said ? said.answer : "…";
  const note = card.querySelector(".note");
  note.hidden = !(said?.unsure && about.tells_familiarity);
  note.textContent = note.hidden ? "" : `familiarity ${percent(said.familiarity)}`;
  const reason = card.querySelector(".reason");
  reason.hidden = state !== "wrong";
  reason.textContent = one.reason ?? "";
  card.querySelector(".bars").replaceChildren(
    ...(said?.top ?? []).map((likely) => {
      const bar = $("bar").content.firstElementChild.cloneNode(true);
      bar.querySelector(".name").textContent = likely.class;
      bar.querySelector(".share").textContent = percent(likely.probability);
      bar.querySelector(".fill").style.width = `${100 * likely.probability}%`;
      return bar;
    }),
  );
  map(one);
}

function fits(one) {
  const wanted = $("class").value;
  const how = $("certainty").value;
  if (one.state === "new" || one.state === "asking") return wanted === "" && how === "any";
  if (wanted !== "" && one.answer?.top[0].class !== wanted) return false;
  if (how === "any") return true;
  if (how === "unreadable") return one.state === "wrong";
  if (how === "unsure") return Boolean(one.answer?.unsure);
  if (!one.answer) return false;
  const limit = Number(how) / 100;
  return limit > 0 ? certainty(one) >= limit : certainty(one) < -limit;
}

function show() {
  const some = shown.length > 0;
  document.body.classList.toggle("some", some);
  $("tools").hidden = !some;
  const those = shown.filter(fits);
  const fit = new Set(those);
  for (const one of shown) {
    if (one.card.hidden === fit.has(one)) one.card.hidden = !one.card.hidden; // each write costs
  }
  $("gallery").classList.toggle("one", shown.length === 1);
  $("nothing").hidden = !some || those.length > 0;
  const wrong = shown.filter((one) => one.state === "wrong");
  const done = shown.filter((one) => one.answer).length + wrong.length;
  $("progress").hidden = done === shown.length;
  $("progress").max = shown.length || 1;
  $("progress").value = done;
  $("csv").disabled = done < shown.length || !those.length;
  $("csv").textContent = those.length < shown.length ? `CSV of these ${those.length}` : "CSV";
  $("again").hidden = !wrong.some((one) => one.again);
  const unsure = shown.filter((one) => one.answer?.unsure).length;
  const parts = [`${done} of ${shown.length} images answered`];
  if (done === shown.length) parts[0] = shown.length === 1 ? "1 image" : `${shown.length} images`;
  if (unsure) parts.push(`${unsure} unsure`);
  if (wrong.length) parts.push(`${wrong.length} without an answer`);
  if (those.length < shown.length) parts.push(`${those.length} shown`);
  say(some ? parts.join(" · ") : "");
}

// Once for all answers of a moment: a folder may have thousands.
let due = false;
function showSoon() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    show();
    if ($("order").value !== "added") sortSoon();
  });
}

// Cards that come and go under the eye are no order: at most so often before all are answered.
let sorting = null;
function sortSoon() {
  const done = shown.every(({ state }) => state === "answered" || state === "wrong");
  if (done) sort();
  else sorting ??= setTimeout(() => { sorting = null; sort(); }, SORTED_MS);
}

function say(text, wrong = false) {
  if ($("status").textContent !== text) $("status").textContent = text;
  $("status").classList.toggle("wrong", wrong);
}

function sort() {
  const order = [...shown];
  if ($("order").value === "doubtful") order.sort((a, b) => certainty(a) - certainty(b));
  const now = $("gallery").children;
  if (order.some((one, i) => one.card !== now[i])) $("gallery").append(...order.map((one) => one.card));
}

// --- activation maps, of what is on the screen ---

const visible = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      target.record.near = isIntersecting;
      map(target.record);
    }
  },
  { rootMargin: "300px" },
);

async function map(one) {
  const overlay = one.card.querySelector(".overlay");
  const target = one.answer?.top[0].class;
  overlay.hidden = !($("map").checked && one.maps.get(target));
  if (!$("map").checked || !one.near || target === undefined) return;
  if (!one.maps.has(target)) {
    one.maps.set(target, null); // on its way
    try {
      const query = new URLSearchParams({ class: target });
      const response = await ask(`api/explain?${query}`, { method: "POST", body: form("image", one) });
      one.maps.set(target, URL.createObjectURL(await response.blob()));
    } catch (error) {
      one.maps.delete(target);
      say(error.message, true);
      return;
    }
    map(one);
    return;
  }
  if (one.maps.get(target)) {
    overlay.src = one.maps.get(target);
    overlay.alt = `where ${target} was seen on ${one.path}`;
    overlay.hidden = false;
  }
}

// --- CSV, with the columns of `tlkit predict --format csv` ---

function csv() {
  const those = shown.filter(fits);
  const top = Math.max(0, ...those.map((one) => one.answer?.top.length ?? 0)) || Math.min(3, about.classes.length);
  const extra = [about.rejects && "answer", about.tells_familiarity && "familiarity"].filter(Boolean);
  const each = Array.from({ length: top }, (_, i) => [`class_${i + 1}`, `probability_${i + 1}`]).flat();
  const rows = those.map(({ path, answer: said, reason }) => [
    path,
    ...extra.map((name) => said?.[name] ?? ""),
    ...(said ? said.top.flatMap((one) => [one.class, one.probability]) : each.map(() => "")),
    reason ?? "",
  ]);
  const cell = (one) => (/[",\r\n]/.test(one) ? `"${String(one).replaceAll('"', '""')}"` : String(one));
  const lines = [["path", ...extra, ...each, "error"], ...rows].map((row) => `${row.map(cell).join(",")}\n`);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(lines, { type: "text/csv" }));
  link.download = "answers.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// --- the start ---

function option(value, text = value) {
  const made = document.createElement("option");
  made.value = value;
  made.textContent = text;
  return made;
}

function clear() {
  round++;
  for (const one of shown.splice(0)) {
    visible.unobserve(one.card);
    one.card.remove();
    for (const url of [one.url, ...one.maps.values()]) if (url) URL.revokeObjectURL(url);
  }
  show();
}

function describePolicy() {
  const chosen = about.policies.find((one) => one.name === $("tta").value);
  $("tta-about").textContent = chosen.views > 1 ? chosen.about : "";
}

function listen() {
  for (const id of ["files", "folder"]) {
    $(id).onchange = ({ target }) => {
      const files = [...target.files].map(named);
      target.value = "";
      add(id === "folder" ? asked.then(() => inOrder(files.filter(isImage))) : files);
    };
  }
  let depth = 0; // of elements that were entered
  const drag = (by) => (event) => {
    event.preventDefault();
    depth = Math.max(0, depth + by);
    document.body.classList.toggle("dragged", depth > 0);
  };
  document.ondragenter = drag(1);
  document.ondragleave = drag(-1);
  document.ondragover = (event) => event.preventDefault();
  document.ondrop = (event) => {
    drag(-Infinity)(event);
    add(dropped(event.dataTransfer));
  };
  document.onpaste = (event) => {
    const files = [...event.clipboardData.files];
    if (files.length) event.preventDefault();
    add(files.map((file) => ({ file, path: `pasted-${++pasted}-${file.name}` })));
  };
  $("tta").onchange = () => {
    round++;
    describePolicy();
    shown.forEach(again);
    shown.forEach(draw);
    show();
    fill();
  };
  $("again").onclick = () => {
    shown.filter((one) => one.again).forEach(again);
    show();
    fill();
  };
  $("map").onchange = () => shown.forEach(map);
  $("class").onchange = $("certainty").onchange = show;
  $("order").onchange = sort;
  $("csv").onclick = csv;
  $("clear").onclick = clear;
}

async function begin() {
  about = await (await ask("api/head")).json();
  const classes = about.classes;
  $("head").textContent = `${about.head} · ${classes.length} classes: ${classes.slice(0, 6).join(", ")}${classes.length > 6 ? " …" : ""}`;
  document.title = `${about.head} · tlkit`;
  $("tta").append(...about.policies.map(({ name, views }) => option(name, `${name} · ${views} ${views > 1 ? "views" : "view"}`)));
  $("class").append(option("", "all"), ...classes.map((name) => option(name)));
  $("map").disabled = !about.explains;
  if (!about.explains) $("map-about").textContent = about.explains_not;
  describePolicy();
}

// Before the server has answered: a file dropped on a page that does not listen takes its place.
listen();
const asked = begin();
asked.catch((error) => say(error.message, true));
