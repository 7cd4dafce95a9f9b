// /metrics as a scraper gets it.
import { get, say } from "./dom";

const accept: Record<string, string> = { openmetrics: "application/openmetrics-text;version=1.0.0", text: "text/plain;version=0.0.4" };

export class Raw {
  private readonly box = get("raw");
  private readonly what = get<HTMLSelectElement>("raw-what");
  private readonly format = get<HTMLSelectElement>("raw-format");
  private busy = false;

  constructor(private readonly own: () => Set<string>) {
    this.what.addEventListener("change", () => void this.refresh());
    this.format.addEventListener("change", () => void this.refresh());
    window.setInterval(() => {
      if (!document.hidden) void this.refresh();
    }, 2000);
    void this.refresh();
  }

  async refresh(): Promise<void> {
    if (this.busy || this.selected()) return;
    this.busy = true;
    try {
      const response = await fetch("/metrics", { headers: { Accept: accept[this.format.value]! } });
      const text = await response.text();
      say(this.box, this.pick(text) || "# nothing yet\n");
    } catch (error) {
      say(this.box, `# ${error instanceof Error ? error.message : error}\n`);
    } finally {
      this.busy = false;
    }
  }

  /** selected: whoever copies from it must not lose what they marked. */
  private selected(): boolean {
    const selection = document.getSelection();
    return !!selection && !selection.isCollapsed && this.box.contains(selection.anchorNode);
  }

  /** pick leaves out the families that are not asked for. Each begins with comments that name it. */
  private pick(text: string): string {
    const what = this.what.value;
    if (what === "all") return text;
    let keep = false;
    return text.split("\n").filter((line) => {
      const [, name] = /^# (?:HELP|TYPE|UNIT) (\S+)/.exec(line) ?? [];
      if (name) {
        const own = this.own();
        keep = what === "own" ? [name, `${name}_total`, `${name}_info`].some((n) => own.has(n)) : !/^(go|process|promhttp)_/.test(name);
      }
      return keep && line !== "# EOF";
    }).join("\n");
  }
}
