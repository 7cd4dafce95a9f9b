// What the kernel says of the lab, and what is injected into it.
import { ask, type Injections, type KernelView, type Sample } from "./api";
import { get, make, say } from "./dom";
import { bytes, ofUnit, plain, seconds } from "./quantity";
import type { Guide } from "./steps";

const mostFacts = 40;

export class Kernel {
  private busy = false;
  /** What the injections say, for comparison. */
  injections: Injections | null = null;

  constructor(private readonly guide: Guide) {
    window.setInterval(() => {
      if (!document.hidden) void this.refresh();
    }, 2000);
    void this.refresh();
    get<HTMLDetailsElement>("kernel-all").addEventListener("toggle", (event) => {
      // The guide goes on when somebody looked; if it can't be told, it only does not.
      if ((event.target as HTMLDetailsElement).open) ask("POST", "/api/steps/kernel").catch(() => undefined);
    });
  }

  private async refresh(): Promise<void> {
    if (this.busy) return;
    this.busy = true;
    try {
      this.show(await ask<KernelView>("GET", "/api/kernel"));
    } catch {
      // The status line says that the server is away.
    } finally {
      this.busy = false;
    }
  }

  private show(view: KernelView): void {
    const note = get("kernel-note");
    this.guide.without("kernel", view.available || view.loading ? null : view.reason ?? "the kernel can't be asked");
    for (const id of ["kernel-link", "twin", "kernel-all"]) get(id).hidden = !view.available;
    const failed = view.programs.filter((program) => !program.up && program.reason && program.reason !== view.reason).map((program) => `${program.name}: ${program.reason}`);
    if (view.available) say(note, [view.error ?? "", view.reason ?? "", ...failed].filter(Boolean).join(" · "));
    else say(note, view.loading ? "Its programs are being loaded." : `Not on this machine: ${view.reason}. Everything else works.`);
    note.hidden = note.textContent === "";
    get("twin-rows").replaceChildren(...rows(view, this.injections).map(([what, app, kernel]) => make("tr", {}, make("th", { scope: "row" }, what), make("td", {}, app), make("td", {}, kernel))));
    const groups = new Map<string, Sample[]>();
    for (const sample of view.series) {
      const group = groups.get(sample.metric);
      if (group) group.push(sample);
      else groups.set(sample.metric, [sample]);
    }
    get("facts").replaceChildren(...[...groups].slice(0, mostFacts).map(([metric, series]) => make("div", { class: "fact" }, make("code", {}, metric), make("ul", {}, ...series.slice(0, 12).map(line), ...(series.length > 12 ? [make("li", {}, `and ${series.length - 12} more`)] : [])))));
  }
}

/** rows are what app and kernel both know, and then what only the kernel does. */
function rows(view: KernelView, injections: Injections | null): [string, string, string][] {
  const sum = (metric: string, labels: Record<string, string> = {}): number | null => {
    const found = view.series.filter((s) => s.metric === metric && Object.entries(labels).every(([name, value]) => (s.labels ?? {})[name] === value));
    return found.length ? found.reduce((total, s) => total + (s.value ?? 0), 0) : null;
  };
  const text = (value: number | null, as: (value: number) => string) => (value === null ? "–" : as(value));
  const result: [string, string, string][] = [
    ["Kicks", plain(view.app.kicks), text(view.seen, plain)],
    ["CPU time", seconds(view.app.cpuSeconds), text(sum("oncpu_seconds_total", { cgroup: "lab" }), seconds)],
    ["Memory", bytes(view.app.residentBytes), text(sum("accelerator_kernel_resident_memory_bytes", { cgroup: "lab" }), bytes)],
  ];
  for (const each of injections?.injections ?? []) {
    const cgroup = `inject-${each.kind}`;
    if (each.kind === "cpu") result.push(["CPU injected", seconds(each.cpuSeconds), text(sum("oncpu_seconds_total", { cgroup }), seconds)]);
    else result.push(["Memory injected", bytes(each.bytes), each.running ? text(sum("accelerator_kernel_resident_memory_bytes", { cgroup }), bytes) : "0 B"]);
  }
  result.push(
    ["System calls", "", text(sum("syscalls_total", { cgroup: "lab" }), plain)],
    ["Connections taken", "", text(sum("syscalls_total", { cgroup: "lab", syscall: "accept4" }), plain)],
    ["Bytes sent", "", text(sum("network_bytes_total", { cgroup: "lab", direction: "transmit" }), bytes)],
    ["Programs started", "", text(sum("process_starts_total"), plain)],
  );
  return result;
}

function line(sample: Sample): HTMLElement {
  const labels = Object.entries(sample.labels ?? {}).map(([name, value]) => `${name}=${value}`).join(" ");
  let text = sample.state ?? "";
  if (sample.value !== undefined) text = ofUnit(sample.value, sample.unit);
  else if (sample.count !== undefined) text = sample.count ? `${plain(sample.count)} × ${ofUnit((sample.sum ?? 0) / sample.count, sample.unit)}` : "0";
  return make("li", {}, make("span", {}, labels || "in all"), make("b", {}, text));
}

/** What the buttons ask for. */
const amounts: Record<string, { name: string; what: string; want: object }> = {
  cpu: { name: "CPU", what: "One CPU, for a minute", want: { cpus: 1, seconds: 60 } },
  memory: { name: "memory", what: "128 MiB, for a minute", want: { bytes: 128 << 20, seconds: 60 } },
};

export class Inject {
  private readonly rows = new Map<string, { text: HTMLElement; button: HTMLButtonElement; meter: HTMLElement }>();
  private running = new Set<string>();

  constructor(private readonly guide: Guide) {
    for (const [kind, { name, what }] of Object.entries(amounts)) {
      const text = make("span", {}, what);
      const button = make("button", { type: "button", "data-inject": kind }, `Inject ${name}`);
      const meter = make("progress", { max: "60", value: "0", "aria-label": `${name}: time left` });
      meter.hidden = true;
      button.addEventListener("click", () => void this.toggle(kind, button, text));
      get("injections").append(make("div", { class: "injection" }, button, text, meter));
      this.rows.set(kind, { text, button, meter });
    }
  }

  show(injections: Injections): void {
    get("injections").hidden = !injections.available;
    if (!injections.available) say(get("inject-note"), "Nothing can be injected here.");
    for (const kind of this.rows.keys()) this.guide.without(kind, injections.available ? null : "nothing can be injected");
    for (const each of injections.injections) {
      const row = this.rows.get(each.kind);
      if (!row) continue;
      const { name, what } = amounts[each.kind]!;
      const was = this.running.has(each.kind);
      if (each.running) this.running.add(each.kind);
      else this.running.delete(each.kind);
      say(row.button, each.running ? `Stop ${name}` : `Inject ${name}`);
      row.meter.hidden = !each.running;
      row.meter.setAttribute("max", String(each.duration || 60));
      row.meter.setAttribute("value", String(each.remaining));
      if (each.running) say(row.text, each.kind === "cpu" ? `${seconds(each.cpuSeconds)} of CPU time so far` : `${bytes(each.bytes)} are held`);
      else if (was) say(row.text, each.error ?? `It has ended. ${what}`);
    }
  }

  private async toggle(kind: string, button: HTMLButtonElement, text: HTMLElement): Promise<void> {
    button.disabled = true;
    try {
      this.show(this.running.has(kind) ? await ask<Injections>("DELETE", `/api/inject/${kind}`) : await ask<Injections>("POST", `/api/inject/${kind}`, amounts[kind]!.want));
    } catch (error) {
      say(text, error instanceof Error ? error.message : String(error));
    } finally {
      button.disabled = false;
      button.focus({ preventScroll: true });
    }
  }
}
