// The page leads on: what to try next. What is done is known by the server.
import { get, make, say } from "./dom";
import type { Editor } from "./editor";

interface Step {
  id: string;
  title: string;
  text: string;
  /** code is what to write; edit puts it into a program. */
  code?: string;
  edit?: (program: string) => string;
  /** go is the id of what it is about. */
  go: string;
  /** opens is the id of what has to be opened to see it. */
  opens?: string;
}

const power = (value: number) => (program: string) => program.replace(/^KICK_POWER\s*=.*$/m, `KICK_POWER = ${value}`);

/** inKick puts a line first into kick, and definitions before it. */
function inKick(definition: string, line: string): (program: string) => string {
  return (program) => {
    if (program.includes(definition)) return program;
    const at = /^def kick\(.*\):.*$/m.exec(program);
    if (!at) return `${program.trimEnd()}\n\n${definition}\n\ndef kick(turn, beam):\n    ${line}\n    return KICK_POWER\n`;
    const end = at.index + at[0].length;
    return `${program.slice(0, at.index)}${definition}\n\n${at[0]}\n    ${line}${program.slice(end)}`;
  };
}

const steps: Step[] = [
  { id: "launch", title: "Launch the beam", go: "launch", text: "Press Launch. Each time the beam passes the cavity on the right it gets a kick, and is faster from then on." },
  { id: "timeout", title: "Watch it run out of time", go: "particle", text: "The kick power is 27. Watch the speed: after 30 seconds the magnets can hold the beam no longer." },
  { id: "edit", title: "Change the code", go: "code", text: "27 was too weak. Give KICK_POWER another number and save: the program is taken up at once, without a restart.", code: "KICK_POWER = 40", edit: power(40) },
  { id: "success", title: "Reach the speed of light, nearly", go: "launch", text: "Launch again and watch the charts. A power between 30 and 49 is strong enough: 0.999999991 of the speed of light." },
  { id: "overload", title: "Now too much", go: "code", text: "What happens at 50? Save it and launch: the magnets overload at the first kick.", code: "KICK_POWER = 50", edit: power(50) },
  { id: "count", title: "A metric of your own", go: "code", text: "Count the kicks. Save, launch, and look at the data: kick_count_total appears as a chart and in /metrics.", code: 'kick_count = counter("kick_count", "Kicks so far.")\n\ndef kick(turn, beam):\n    kick_count.inc()', edit: (program) => inKick('kick_count = counter("kick_count", "Kicks so far.")', "kick_count.inc()")(power(40)(program)) },
  { id: "histogram", title: "A distribution", go: "code", text: "A counter says how often. A histogram says how fast the beam was at each kick. Save and launch.", code: 'speed = histogram("kick_speed_ratio", "Speed at each kick.", buckets=[0.2, 0.4, 0.6, 0.8, 1])\n\ndef kick(turn, beam):\n    speed.observe(beam.ratio)', edit: inKick('speed = histogram("kick_speed_ratio", "Speed at each kick.", buckets=[0.2, 0.4, 0.6, 0.8, 1])', "speed.observe(beam.ratio)") },
  { id: "label", title: "A label", go: "code", text: "Tell the first ten seconds from the rest: a label makes one series of each. Few values, always.", code: 'speed = histogram("kick_speed_ratio", …, labels=["phase"])\n…\n    speed.observe(beam.ratio, phase="early" if beam.elapsed < 10 else "late")', edit: label },
  { id: "cpu", title: "Use up CPU", go: "inject", text: "Inject CPU time. The lab says itself what it uses: accelerator_injected_cpu_seconds_total in /metrics. The kernel accounts for it whether or not anybody says so." },
  { id: "memory", title: "Use up memory", go: "inject", text: "The same with memory: accelerator_injected_memory_bytes from inside, what the cgroup is charged for from the kernel." },
  { id: "kernel", title: "Ask the kernel", go: "kernel", opens: "kernel-all", text: "Nobody changed the simulator for this: a uprobe on its kick function counts the same kicks that the lab counts itself." },
];

function label(program: string): string {
  const observe = "speed.observe(beam.ratio)";
  if (!program.includes(observe)) program = steps.find((step) => step.id === "histogram")!.edit!(program);
  return program
    .replace(/^(speed = histogram\("kick_speed_ratio".*)\)$/m, (line, start: string) => (line.includes("labels=") ? line : `${start}, labels=["phase"])`))
    .replace(observe, 'speed.observe(beam.ratio, phase="early" if beam.elapsed < 10 else "late")');
}

export class Guide {
  private done = new Set<string>();
  private shown: Step | null = null;
  private readonly missing = new Map<string, string>();

  constructor(private readonly editor: Editor) {
    this.draw();
  }

  show(done: string[]): void {
    const fresh = done.filter((id) => !this.done.has(id));
    this.done = new Set(done);
    // What was just done makes way for what is next; one that was picked by hand stays until it is done.
    if (!this.shown || fresh.includes(this.shown.id) || this.done.has(this.shown.id)) this.shown = null;
    this.draw();
  }

  /** without says why a step can't be taken on this machine. */
  without(id: string, reason: string | null): void {
    if ((this.missing.get(id) ?? null) === reason) return;
    if (reason === null) this.missing.delete(id);
    else this.missing.set(id, reason);
    this.draw();
  }

  private next(): Step | null {
    return steps.find((step) => !this.done.has(step.id) && !this.missing.has(step.id)) ?? null;
  }

  private draw(): void {
    const step = this.shown ?? this.next();
    const number = step ? steps.indexOf(step) + 1 : steps.length;
    say(get("guide-count"), step ? `Step ${number} of ${steps.length}` : "All done");
    say(get("guide-title"), step?.title ?? (this.missing.has("kernel") ? "You have seen what there is to see on this machine" : "You have seen it from inside and from the kernel"));
    const reason = step && this.missing.get(step.id);
    say(get("guide-text"), step ? (reason ? `Not on this machine: ${reason}` : step.text) : "Try the physics mode, a gauge with fn, or another program. Reset brings the original back.");
    const code = get("guide-code");
    code.hidden = !step?.code;
    say(code, step?.code ?? "");
    const actions: HTMLElement[] = [];
    if (step?.edit) {
      const put = make("button", { type: "button", id: "guide-put" }, "Put it into the editor");
      put.addEventListener("click", () => this.editor.put(step.edit!(this.editor.text())));
      actions.push(put);
    }
    if (step) {
      const go = make("a", { href: `#${step.go}`, class: "go" }, "Show me");
      go.addEventListener("click", (event) => {
        event.preventDefault();
        const target = get(step.go);
        const more = step.opens && get<HTMLDetailsElement>(step.opens);
        if (more) more.open = true;
        target.scrollIntoView({ block: "center" });
        target.classList.add("pointed");
        window.setTimeout(() => target.classList.remove("pointed"), 1600);
        target.focus({ preventScroll: true });
      });
      actions.push(go);
    }
    get("guide-actions").replaceChildren(...actions);
    get("guide-dots").replaceChildren(...steps.map((each, i) => {
      const state = this.done.has(each.id) ? "done" : this.missing.has(each.id) ? "missing" : each === step ? "now" : "open";
      const button = make("button", { type: "button", "data-state": state, "data-step": each.id, title: each.title, "aria-label": `Step ${i + 1}, ${each.title}: ${state === "now" ? "next" : state}` }, state === "done" ? "✓" : String(i + 1));
      if (each === step) button.setAttribute("aria-current", "step");
      button.addEventListener("click", () => {
        this.shown = each;
        this.draw();
        get("guide-dots").querySelectorAll("button")[i]?.focus();
      });
      return make("li", {}, button);
    }));
  }
}
