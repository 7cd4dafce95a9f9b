// The particle view: the ring, what circulates in it, and the cavity that kicks.
import { type State } from "./api";
import { calm, color, dark, get, make, say } from "./dom";
import { plain, quantity, share } from "./quantity";

/** From where kelvin count as warm, and where a magnet surely leaves the superconducting state. */
const cold = 1.9;
const warm = 3.5;
/** Radians per second of the wall above which a dot would only flicker: it becomes an arc. */
const fastest = 22;

interface Wave {
  born: number;
  power: number;
}

interface Track {
  angle: number;
  bend: number;
  length: number;
}

export class ParticleView {
  private readonly canvas = get<HTMLCanvasElement>("ring");
  private readonly readouts = new Map<string, HTMLElement>();
  private state: State | null = null;
  private received = 0;
  private waves: Wave[] = [];
  private tracks: Track[] = [];
  private crashed = 0;
  private frame = 0;
  private palette: Record<string, string> = {};

  constructor() {
    const list = get("readouts");
    for (const [key, label] of [["ratio", "Speed / c"], ["energy", "Energy"], ["power", "Latest kick"], ["kicks", "Kicks"], ["turns", "Turns"], ["elapsed", "Time"], ["temperature", "Warmest"], ["protons", "Protons"]] as const) {
      const value = make("dd", {}, "–");
      list.append(make("div", { "data-of": key }, make("dt", {}, label), value));
      this.readouts.set(key, value);
    }
    this.recolor();
    dark.addEventListener("change", () => this.recolor());
    new ResizeObserver(() => this.draw(performance.now())).observe(this.canvas);
  }

  show(state: State): void {
    const now = performance.now();
    const before = this.state;
    this.state = state;
    this.received = now;
    if (before && before.run === state.run && state.kicks > before.kicks && state.mode === "compatible") {
      this.waves.push({ born: now, power: state.kick });
    }
    if (before && state.status === "overloaded" && before.status !== "overloaded") this.crash(now, state);
    if (state.status !== "overloaded") this.tracks = [];
    this.write(state);
    if (!this.frame) this.frame = requestAnimationFrame((time) => this.animate(time));
  }

  private write(state: State): void {
    const texts: Record<string, string> = {
      ratio: share(state.ratio), energy: quantity(state.energy, "eV"), power: plain(state.kick), kicks: plain(state.kicks),
      turns: plain(state.turns), elapsed: `${state.elapsed.toFixed(state.mode === "physics" ? 0 : 1)} s`,
      temperature: `${state.temperature.toFixed(3)} K`, protons: state.protons.toExponential(2),
    };
    for (const [key, element] of this.readouts) {
      say(element, texts[key] ?? "");
      element.parentElement!.hidden = state.mode === "compatible" && (key === "temperature" || key === "protons");
    }
    const sectors = state.sectors ? `; sectors at ${state.sectors.map((t) => t.toFixed(1)).join(", ")} kelvin` : "";
    this.canvas.setAttribute("aria-label", `The ring of the accelerator: ${state.status}, at ${share(state.ratio)} of the speed of light${sectors}`);
  }

  private recolor(): void {
    for (const name of ["ink", "muted", "line", "surface", "accent", "beam", "success", "danger", "cold", "warm"]) this.palette[name] = color(name);
    this.draw(performance.now());
  }

  /** crash makes the tracks that a beam leaves that was lost. */
  private crash(now: number, state: State): void {
    this.crashed = now;
    const angle = state.mode === "compatible" ? 0 : Math.random() * 2 * Math.PI;
    this.tracks = Array.from({ length: 11 }, (_, i) => ({
      angle: angle + (i - 5) * 0.05, bend: (i % 2 ? 1 : -1) * (0.4 + (i * 37 % 11) / 7), length: 0.13 + (i * 53 % 13) / 65,
    }));
  }

  private animate(now: number): void {
    this.frame = 0;
    this.waves = this.waves.filter((wave) => now - wave.born < 700);
    this.draw(now);
    const alive = this.state?.status === "running" || this.state?.status === "success";
    if ((alive && !calm.matches) || this.waves.length > 0 || now - this.crashed < 900) {
      this.frame = requestAnimationFrame((time) => this.animate(time));
    }
  }

  private draw(now: number): void {
    const size = this.canvas.clientWidth;
    const context = this.canvas.getContext("2d");
    if (!size || !context) return;
    const scale = window.devicePixelRatio || 1;
    const pixels = Math.round(size * scale);
    if (this.canvas.width !== pixels) this.canvas.width = this.canvas.height = pixels;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, size, size);
    context.translate(size / 2, size / 2);
    const radius = size * 0.38;
    context.lineCap = "round";
    this.drawRing(context, radius);
    this.drawCavity(context, radius, now);
    this.drawBeam(context, radius, now);
    this.drawTracks(context, radius, now);
    this.drawCentre(context, radius);
  }

  private drawRing(context: CanvasRenderingContext2D, radius: number): void {
    const { palette, state } = this;
    context.lineWidth = 14;
    context.strokeStyle = palette.line!;
    context.globalAlpha = 0.5;
    context.beginPath();
    context.arc(0, 0, radius, 0, 2 * Math.PI);
    context.stroke();
    context.globalAlpha = 1;
    const sectors = state?.sectors;
    if (sectors) {
      const part = 2 * Math.PI / sectors.length;
      context.lineCap = "butt";
      context.font = "11px system-ui, sans-serif";
      context.textAlign = "center";
      context.textBaseline = "middle";
      sectors.forEach((kelvin, i) => {
        context.lineWidth = 14;
        context.strokeStyle = this.heat(kelvin);
        context.beginPath();
        context.arc(0, 0, radius, -(i + 1) * part + 0.03, -i * part - 0.03);
        context.stroke();
        const middle = -(i + 0.5) * part;
        context.fillStyle = palette.muted!;
        context.fillText(`${kelvin.toFixed(2)} K`, Math.cos(middle) * radius * 0.78, Math.sin(middle) * radius * 0.78);
      });
      context.lineCap = "round";
      return;
    }
    for (const offset of [-7, 7]) {
      context.lineWidth = 1;
      context.strokeStyle = palette.muted!;
      context.globalAlpha = 0.55;
      context.beginPath();
      context.arc(0, 0, radius + offset, 0, 2 * Math.PI);
      context.stroke();
    }
    // The magnets' joints.
    for (let i = 0; i < 32; i++) {
      const [x, y] = [Math.cos(i * Math.PI / 16), Math.sin(i * Math.PI / 16)];
      context.globalAlpha = 0.3;
      context.beginPath();
      context.moveTo(x * (radius - 7), y * (radius - 7));
      context.lineTo(x * (radius + 7), y * (radius + 7));
      context.stroke();
    }
    context.globalAlpha = 1;
  }

  /** heat mixes the color of a temperature. */
  private heat(kelvin: number): string {
    const share = Math.min(Math.max((kelvin - cold) / (warm - cold), 0), 1);
    return `color-mix(in oklab, ${this.palette.warm} ${(share * 100).toFixed(0)}%, ${this.palette.cold})`;
  }

  private drawCavity(context: CanvasRenderingContext2D, radius: number, now: number): void {
    const { palette } = this;
    context.save();
    context.translate(radius, 0);
    const width = radius * 0.2;
    const height = radius * 0.36;
    context.fillStyle = palette.accent!;
    context.strokeStyle = palette.accent!;
    const glow = this.waves.length > 0 && !calm.matches ? 0.22 : 0.1;
    context.globalAlpha = glow;
    context.beginPath();
    context.roundRect(-width / 2, -height / 2, width, height, 8);
    context.fill();
    context.globalAlpha = 0.8;
    context.lineWidth = 1.5;
    context.stroke();
    if (!calm.matches) {
      for (const wave of this.waves) {
        const age = Math.max(now - wave.born, 0) / 700; // a frame may have begun before it was told
        context.globalAlpha = (1 - age) * 0.8;
        context.strokeStyle = wave.power >= 50 ? palette.danger! : palette.beam!;
        context.lineWidth = 1 + wave.power / 22;
        context.beginPath();
        context.arc(0, 0, width * 0.6 + age * radius * 0.5, -Math.PI / 2 - 0.75, -Math.PI / 2 + 0.75);
        context.stroke();
      }
    }
    context.restore();
    context.globalAlpha = 1;
  }

  private drawBeam(context: CanvasRenderingContext2D, radius: number, now: number): void {
    const { palette, state } = this;
    if (!state || (state.status !== "running" && state.status !== "success")) return;
    const since = calm.matches ? 0 : Math.max(now - this.received, 0) / 1000;
    let speed = 0;
    let angle = 0;
    if (state.mode === "compatible") {
      speed = state.omega * state.warp;
      angle = state.angle + speed * Math.min(since, 0.5);
    } else {
      // 11,245 turns in a second: what is seen is as slow as an eye needs it, and as bright as there is energy.
      speed = 3 + 9 * state.energy / 6.8e12;
      angle = now / 1000 * speed;
    }
    const hue = state.status === "success" ? palette.success! : palette.beam!;
    context.lineCap = "butt";
    context.strokeStyle = hue;
    if (speed > fastest) {
      context.globalAlpha = 0.7;
      context.lineWidth = 6;
      context.beginPath();
      context.arc(0, 0, radius, 0, 2 * Math.PI);
      context.stroke();
    } else {
      const tail = Math.min(Math.max(speed * 0.13, 0.12), 2 * Math.PI);
      const pieces = 36;
      for (let i = 0; i < pieces; i++) {
        const share = i / pieces;
        context.globalAlpha = share * share * 0.75;
        context.lineWidth = 2 + 5 * share;
        context.beginPath();
        // Angles of the simulation run against the clock.
        context.arc(0, 0, radius, -(angle - tail + tail * share), -(angle - tail + tail * (share + 1.2 / pieces)), true);
        context.stroke();
      }
    }
    context.lineCap = "round";
    context.globalAlpha = 1;
    if (speed <= fastest || calm.matches) {
      context.fillStyle = hue;
      context.beginPath();
      context.arc(Math.cos(angle) * radius, -Math.sin(angle) * radius, 7, 0, 2 * Math.PI);
      context.fill();
      context.fillStyle = palette.surface!;
      context.beginPath();
      context.arc(Math.cos(angle) * radius, -Math.sin(angle) * radius, 2.5, 0, 2 * Math.PI);
      context.fill();
    }
  }

  /** drawTracks draws what a cloud chamber would show of a lost beam: curls. */
  private drawTracks(context: CanvasRenderingContext2D, radius: number, now: number): void {
    if (this.tracks.length === 0) return;
    const grown = calm.matches ? 1 : Math.min(Math.max(now - this.crashed, 0) / 600, 1);
    context.strokeStyle = this.palette.danger!;
    context.lineWidth = 1.4;
    context.globalAlpha = 0.75;
    for (const track of this.tracks) {
      let x = Math.cos(track.angle) * radius;
      let y = -Math.sin(track.angle) * radius;
      let heading = -track.angle - Math.PI / 2 + track.bend * 0.35;
      context.beginPath();
      context.moveTo(x, y);
      const steps = Math.floor(46 * grown);
      for (let i = 0; i < steps; i++) {
        heading += track.bend * (0.035 + i * 0.0032);
        x += Math.cos(heading) * radius * track.length * 0.055;
        y += Math.sin(heading) * radius * track.length * 0.055;
        context.lineTo(x, y);
      }
      context.stroke();
    }
    context.globalAlpha = 1;
  }

  private drawCentre(context: CanvasRenderingContext2D, radius: number): void {
    const { palette, state } = this;
    if (!state) return;
    context.textAlign = "center";
    context.textBaseline = "middle";
    const words: Record<string, [string, string]> = {
      stopped: ["ready", "muted"], running: [share(state.ratio), "ink"], success: [share(state.ratio), "success"],
      overloaded: ["overloaded", "danger"], timeout: ["too slow", "danger"],
    };
    let [text, name] = words[state.status] ?? ["", "muted"];
    if (state.status === "stopped" && state.result?.outcome === "success") [text, name] = ["success", "success"];
    context.fillStyle = palette[name]!;
    context.font = `600 ${Math.round(radius * (text.length > 9 ? 0.18 : 0.26))}px system-ui, sans-serif`;
    context.fillText(text, 0, 0);
    if (state.status === "running" || state.status === "success") {
      context.fillStyle = palette.muted!;
      context.font = `${Math.round(radius * 0.1)}px system-ui, sans-serif`;
      context.fillText("of the speed of light", 0, radius * 0.21);
    }
  }
}
