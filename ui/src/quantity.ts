// Numbers as people read them.

const prefixes: [number, string][] = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]];

/** quantity returns three digits and a prefix, as in 6.80 TeV. */
export function quantity(value: number, unit: string): string {
  if (value === 0) return `0 ${unit}`.trim();
  const size = Math.abs(value);
  const [factor, prefix] = prefixes.find(([factor]) => size >= factor) ?? [1, ""];
  const number = value / factor;
  return `${size < 0.001 ? number.toExponential(2) : number.toPrecision(3)} ${prefix}${unit}`.trim();
}

/** compact returns a number that fits beside an axis. */
export function compact(value: number): string {
  return Math.abs(value) < 1e4 ? plain(value) : quantity(value, "").replace(/\.?0+(?= |$)/, "");
}

/** bytes returns a number of bytes with a binary prefix. */
export function bytes(value: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (Math.abs(value) >= 1024 && i < units.length - 1) {
    value /= 1024;
    i++;
  }
  return `${i === 0 ? value : value.toPrecision(3)} ${units[i]}`;
}

/** seconds returns a time with the unit that suits it. */
export function seconds(value: number): string {
  if (value === 0) return "0 s";
  const size = Math.abs(value);
  for (const [factor, unit] of [[1, "s"], [1e-3, "ms"], [1e-6, "µs"]] as [number, string][]) {
    if (size >= factor) return `${(value / factor).toPrecision(3)} ${unit}`;
  }
  return `${(value * 1e9).toPrecision(3)} ns`;
}

/** plain returns a number that has no unit. */
export function plain(value: number): string {
  if (Number.isInteger(value) && Math.abs(value) < 1e9) return value.toLocaleString("en");
  const size = Math.abs(value);
  return size >= 1e6 || size < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

/** ofUnit returns a number with a metric's unit. */
export function ofUnit(value: number, unit?: string): string {
  if (unit === "seconds") return seconds(value);
  if (unit === "bytes") return bytes(value);
  return plain(value);
}

/** share returns v/c with as many nines as there are, and one digit more. */
export function share(ratio: number): string {
  if (ratio === 0) return "0";
  const nines = ratio < 1 ? Math.floor(-Math.log10(1 - ratio)) : 12;
  return ratio.toFixed(Math.min(Math.max(nines + 1, 3), 12));
}
