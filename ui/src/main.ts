import { ask, follow, type History, Refused, type State } from "./api";
import { Charts } from "./charts";
import { get, make, say } from "./dom";
import { Editor } from "./editor";
import { Inject, Kernel } from "./kernel";
import { OwnMetrics } from "./own";
import { ParticleView } from "./particle";
import { Raw } from "./raw";
import { Guide } from "./steps";

const warps = [0.5, 1, 2, 5, 10, 20, 60, 300, 1000];

const editor = new Editor();
const guide = new Guide(editor);
const particle = new ParticleView();
const charts = new Charts();
const own = new OwnMetrics();
const inject = new Inject(guide);
new Raw(() => own.names);
const kernel = new Kernel(guide);

const launch = get<HTMLButtonElement>("launch");
const warp = get<HTMLSelectElement>("warp");
const modes = document.querySelectorAll<HTMLInputElement>("input[name=mode]");
let state: State | null = null;
let connected = false;

function sentence(s: State): string {
  switch (s.status) {
    case "running":
      return "Running";
    case "success":
      return "Success! The beam circulates";
    case "overloaded":
      return s.mode === "physics" ? "Overloaded: a magnet quenched" : "Overloaded: too strong";
    case "timeout":
      return "Timeout: too weak";
    case "stopped":
      if (s.result?.outcome === "success") return "Success!";
      return s.result?.outcome === "abort" ? "Aborted" : "Ready";
  }
}

function show(s: State): void {
  state = s;
  const alive = s.status === "running" || s.status === "success";
  const pill = get("pill");
  pill.dataset.status = s.status === "stopped" && s.result?.outcome === "success" ? "success" : s.status;
  say(get("status"), sentence(s));
  const time = alive ? s.elapsed : s.result?.duration_seconds;
  say(get("elapsed"), time === undefined ? "" : `${time.toFixed(s.mode === "physics" ? 0 : 1)} s${s.slow ? ", the program is slow" : ""}`);
  launch.disabled = false;
  say(launch, alive ? "Abort" : "Launch");
  for (const input of modes) input.checked = input.value === s.mode;
  const value = String(s.warp);
  if (document.activeElement !== warp || warp.value === "") {
    if (![...warp.options].some((option) => option.value === value)) warp.append(make("option", { value }, `× ${value}`));
    warp.value = value;
  }
  particle.show(s);
  charts.add(s);
  if (!alive) charts.draw();
  // For styles, and for whoever waits for the end of a run.
  Object.assign(document.body.dataset, { status: s.status, run: String(s.run), outcome: s.result?.outcome ?? "" });
}

/** tell shows what a command was refused with, where the status is. */
function tell(error: unknown): void {
  say(get("status"), error instanceof Refused || error instanceof Error ? error.message : String(error));
}

async function begin(): Promise<void> {
  try {
    const history = await ask<History>("GET", "/api/history");
    charts.begin(history);
    own.begin(history);
  } catch (error) {
    tell(error);
  }
}

for (const value of warps) warp.append(make("option", { value: String(value) }, `× ${value}`));
launch.addEventListener("click", () => {
  const alive = state?.status === "running" || state?.status === "success";
  ask<State>("POST", alive ? "/api/abort" : "/api/launch").then(show, tell);
});
warp.addEventListener("change", () => ask<State>("PUT", "/api/warp", { warp: Number(warp.value) }).then(show, tell));
for (const input of modes) {
  input.addEventListener("change", () => ask<State>("PUT", "/api/mode", { mode: input.value }).then((s) => {
    show(s);
    warp.value = String(s.warp);
  }, tell));
}

follow({
  state: show,
  program: (program) => editor.show(program),
  steps: (done) => guide.show(done),
  own: (metrics) => own.show(metrics),
  injections: (injections) => {
    inject.show(injections);
    kernel.injections = injections;
  },
}, (yes) => {
  if (yes && !connected) void begin();
  if (!yes) {
    get("pill").dataset.status = "away";
    say(get("status"), "The lab does not answer: is kaon lab running?");
    launch.disabled = true;
  }
  connected = yes;
});

window.setInterval(() => {
  // Otherwise it is enough when something is told.
  const alive = state?.status === "running" || state?.status === "success";
  if (!document.hidden && alive) charts.draw();
}, 100);
