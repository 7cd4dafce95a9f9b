// Builds dist/ from src/ and writes down what it was built from: dist/SUMS has the SHA-256 of every source and of every
// built file, which a Go test compares. The same sources and versions make the same bytes.
import { createHash } from "node:crypto";
import { cpSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

rmSync("dist", { recursive: true, force: true });
mkdirSync("dist");
const result = await build({
  entryPoints: { lab: "src/main.ts", "lab-style": "src/style.css" },
  outdir: "dist",
  bundle: true,
  minify: true,
  format: "esm",
  target: ["es2022"],
  legalComments: "none",
  metafile: true,
  logLevel: "warning",
});
cpSync("src/index.html", "dist/index.html");

// The licenses of what is in the bundle ask to go with it.
const packages = [...new Set(Object.keys(result.metafile.inputs)
  .map((path) => /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1])
  .filter(Boolean))].sort();
const notices = packages.map((name) => {
  const about = JSON.parse(readFileSync(`node_modules/${name}/package.json`, "utf8"));
  const file = readdirSync(`node_modules/${name}`).find((f) => /^licen[cs]e/i.test(f));
  if (!file) throw new Error(`${name} has no license file`);
  return `${name} ${about.version} (${about.license})\n\n${readFileSync(`node_modules/${name}/${file}`, "utf8").trim()}\n`;
});
writeFileSync("dist/LICENSES.txt", notices.join("\n---\n\n"));

const list = (directory) => readdirSync(directory).sort().map((name) => `${directory}/${name}`);
const files = [".npmrc", "build.mjs", "package-lock.json", "package.json", "tsconfig.json", ...list("src"), ...list("dist")];
const sum = (path) => createHash("sha256").update(readFileSync(path)).digest("hex");
writeFileSync("dist/SUMS", files.map((path) => `${sum(path)}  ${path}\n`).join(""));
