// Live charts of the accelerator over the last minute.
import uPlot from "uplot";
import { type History, type State } from "./api";
import { color, dark, get, make, say } from "./dom";
import { plain, quantity, share } from "./quantity";

const span = 60;

/** Chart is one line over time, with its name and its latest value as text. */
export class Chart {
  readonly element: HTMLElement;
  private readonly value: HTMLElement;
  private readonly box: HTMLElement;
  private plot: uPlot | null = null;
  private data: uPlot.AlignedData = [[], []];
  private readonly observer = new ResizeObserver(() => this.resize());
  private readonly recolor = () => this.rebuild();

  constructor(readonly options: ChartOptions) {
    this.value = make("span", { class: "chart-value" });
    this.box = make("div", { class: "chart-box", "aria-hidden": "true" });
    this.element = make("figure", { class: "chart" }, make("figcaption", {}, make("span", {}, options.title), this.value), this.box);
    this.observer.observe(this.box);
    dark.addEventListener("change", this.recolor);
  }

  /** show replaces the data: times in seconds, one array for each line. */
  show(data: uPlot.AlignedData, text: string): void {
    this.data = data;
    say(this.value, text);
    if (!this.box.clientWidth) return;
    if (!this.plot || this.plot.series.length !== data.length) this.rebuild();
    else this.plot.setData(data);
  }

  remove(): void {
    this.observer.disconnect();
    dark.removeEventListener("change", this.recolor);
    this.plot?.destroy();
    this.element.remove();
  }

  private resize(): void {
    const width = this.box.clientWidth;
    if (!width) return;
    if (!this.plot) this.rebuild();
    else if (this.plot.width !== width) this.plot.setSize({ width, height: this.options.height });
  }

  private rebuild(): void {
    this.plot?.destroy();
    const { options } = this;
    const grid = { stroke: color("line"), width: 1 };
    const axis = { stroke: color("muted"), font: "11px system-ui, sans-serif", grid, ticks: { show: false } };
    const lines: uPlot.Series[] = this.data.slice(1).map((_, i) => ({
      stroke: color(options.colors[i % options.colors.length]!),
      width: 1.75,
      ...(options.fill && i === 0 ? { fill: `color-mix(in srgb, ${color(options.colors[0]!)} 14%, transparent)` } : {}),
      ...(options.dashed?.includes(i) ? { dash: [5, 5], width: 1.25 } : {}),
      ...(options.stepped ? { paths: uPlot.paths.stepped!({ align: 1 }) } : {}),
      points: { show: false },
      spanGaps: false,
    }));
    this.plot = new uPlot({
      width: this.box.clientWidth || 300,
      height: options.height,
      legend: { show: false },
      cursor: { show: false },
      padding: [6, 14, 0, 0],
      scales: { x: { time: true, range: lately }, y: options.log ? { distr: 3, log: 10, range: options.range! } : { range: options.range ?? (options.least ? around(options.least) : fit) } },
      series: [{}, ...lines],
      axes: [
        { ...axis, size: 20, splits: (_, __, ___, latest) => [0.75, 0.5, 0.25, 0].map((part) => latest - part * span), values: (plot, ticks) => ticks.map((tick) => ago((plot.scales.x!.max ?? 0) - tick)) },
        { ...axis, size: options.wide ? 74 : 58, space: 26, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : options.format(tick))), ...(options.splits ? { splits: () => options.splits! } : {}) },
      ],
    }, this.data, this.box);
  }
}

export interface ChartOptions {
  title: string;
  height: number;
  colors: string[];
  format: (value: number) => string;
  fill?: boolean;
  dashed?: number[];
  stepped?: boolean;
  log?: boolean;
  range?: [number, number];
  splits?: number[];
  /** least is what is shown at least, where the range follows the data. */
  least?: [number, number];
  /** wide: its numbers are words. */
  wide?: boolean;
}

/** fit leaves room above and below, and begins at 0 if nothing is below it. */
function fit(_: uPlot, low: number | null, high: number | null): [number, number] {
  if (low === null || high === null) return [0, 1];
  const room = (high - low || Math.abs(high) || 1) * 0.1;
  return [low >= 0 && low < high * 0.8 || low === 0 ? 0 : low - room, high + room];
}

/** ahead is by how many milliseconds the server's clock, which points have, is ahead of the browser's. */
let ahead = 0;

/** lately is what charts show, whatever the data. */
function lately(): [number, number] {
  const now = (Date.now() + ahead) / 1000;
  return [now - span, now];
}

function around(least: [number, number]): uPlot.Range.Function {
  return (_, low, high) => [Math.min(least[0], low ?? least[0]), Math.max(least[1], (high ?? least[1]) * 1.03)];
}

function ago(seconds: number): string {
  return seconds < 0.5 ? "now" : `−${Math.round(seconds)} s`;
}

const names = ["stopped", "running", "success", "overloaded", "timeout"];

/** The accelerator's own charts. */
export class Charts {
  private time: number[] = [];
  private columns: Record<"ratio" | "energy" | "status" | "power" | "temperature", (number | null)[]> = { ratio: [], energy: [], status: [], power: [], temperature: [] };
  private readonly charts = {
    ratio: new Chart({ title: "Speed", height: 118, colors: ["beam", "warm"], dashed: [1], fill: true, range: [0, 1.08], splits: [0, 0.25, 0.5, 0.75, 1], format: (v) => (v === 1 ? "c" : v === 0 ? "0" : `${v} c`) }),
    energy: new Chart({ title: "Energy", height: 104, colors: ["danger"], log: true, range: [5e8, 2e13], splits: [1e9, 1e10, 1e11, 1e12, 1e13], format: (v) => quantity(v, "eV").replace(/\.0+/, "") }),
    power: new Chart({ title: "Kick power", height: 92, colors: ["accent"], stepped: true, fill: true, range: [0, 100], splits: [0, 50, 100], format: plain }),
    status: new Chart({ title: "State", height: 104, colors: ["success"], stepped: true, range: [-0.4, 4.4], splits: [0, 1, 2, 3, 4], wide: true, format: (v) => names[v] ?? "" }),
    temperature: new Chart({ title: "Warmest sector", height: 92, colors: ["warm"], least: [1.8, 3.4], format: (v) => `${v.toFixed(2)} K` }),
  };
  private latest: State | null = null;

  constructor() {
    get("charts").append(...Object.values(this.charts).map((chart) => chart.element));
    this.charts.temperature.element.hidden = true;
  }

  begin(history: History): void {
    this.time = (history.time ?? []).map((t) => t / 1000);
    this.columns = {
      ratio: history.ratio ?? [], energy: (history.energy ?? []).map((v) => v || null), status: history.status ?? [],
      power: history.power ?? [], temperature: (history.temperature ?? []).map((v) => v || null),
    };
    if (this.latest) this.add(this.latest);
    this.draw();
  }

  add(state: State): void {
    this.latest = state;
    ahead = state.time - Date.now();
    const time = state.time / 1000;
    if (time <= (this.time.at(-1) ?? 0)) return;
    this.time.push(time);
    this.columns.ratio.push(state.ratio);
    this.columns.energy.push(state.energy || null);
    this.columns.status.push(state.code);
    this.columns.power.push(state.power);
    this.columns.temperature.push(state.temperature || null);
    const first = this.time.findIndex((t) => t > time - span - 2);
    if (first > 200) {
      this.time.splice(0, first);
      for (const column of Object.values(this.columns)) column.splice(0, first);
    }
  }

  draw(): void {
    const state = this.latest;
    if (!state) return;
    const texts = { ratio: `${share(state.ratio)} c`, energy: quantity(state.energy, "eV"), power: plain(state.power), status: state.status, temperature: `${state.temperature.toFixed(3)} K` };
    for (const [key, chart] of Object.entries(this.charts) as [keyof typeof texts, Chart][]) {
      if (key === "temperature") chart.element.hidden = state.mode === "compatible";
      const lines = key === "ratio" ? [this.columns.ratio, this.time.map(() => 1)] : [this.columns[key]];
      chart.show([this.time, ...lines] as uPlot.AlignedData, texts[key]);
    }
  }
}
