// `npm run oracle [-- OPTIONS]`: the full comparison with the host CPU, two million cases by default.
//   --cases N      how many at least          --seed N      another run
//   --only NAMES   mnemonics, by comma        --reports N   differences shown for each instruction
//   --translate    each case rehearsed, and compared when it is translated
// `npm run oracle -- --translator [--blocks N] [--seed N]`: random programs through the translator against the interpreter, ten million blocks
// by default.

import { parseArgs } from "node:util";
import { INSTRUCTIONS } from "../../src/isa/table.ts";
import { plansOfHost } from "./host-features.ts";
import { hostUnable } from "./host-runner.ts";
import { plansOf } from "./plan.ts";
import { NARROW_EVERY, runSession } from "./session.ts";
import { compareTranslator } from "./translator.ts";

const { values } = parseArgs({
  options: {
    cases: { type: "string", default: "2000000" },
    seed: { type: "string", default: "1" },
    only: { type: "string" },
    reports: { type: "string", default: "2" },
    translate: { type: "boolean", default: false },
    translator: { type: "boolean", default: false },
    blocks: { type: "string", default: "10000000" },
  },
});
if (values.translator) process.exit(compareTranslator(Number(values.blocks), Number(values.seed)));
const unable = hostUnable();
if (unable !== undefined) {
  console.error(`oracle: the host can't run the cases: ${unable}`);
  process.exit(1);
}
const only = values.only?.split(",");
const plans = plansOfHost(plansOf(INSTRUCTIONS)).filter(
  ({ row }) => only === undefined || only.includes(row.instruction.name),
);
if (plans.length === 0) {
  console.error("oracle: no instruction has that name");
  process.exit(1);
}
const narrow = plans.filter(({ mode }) => mode === 16).length;
const rounds = Math.ceil(Number(values.cases) / (plans.length - narrow + narrow / NARROW_EVERY));
console.log(`${plans.length} kinds of cases, ${rounds} rounds`);
const start = performance.now();
let shown = start;
const outcome = await runSession({
  plans,
  rounds,
  seed: Number(values.seed),
  reportsEach: Number(values.reports),
  translated: values.translate,
  progress: ({ cases, differing }) => {
    const now = performance.now();
    if (now - shown < 10_000) return;
    shown = now;
    console.log(`${cases} cases, ${differing} differ, ${Math.round(cases / ((now - start) / 1000))} a second`);
  },
});
for (const report of outcome.reports) console.log(`\n${report}`);
console.log("");
const names = [...outcome.byInstruction].sort(([a], [b]) => (a < b ? -1 : 1));
console.log(
  names
    .map(([name, { cases, differing }]) => `${name} ${cases}${differing > 0 ? ` (${differing} differ)` : ""}`)
    .join(", "),
);
console.log("\nfields that known differences between processors explain:");
for (const [why, count] of [...outcome.known].sort(([, a], [, b]) => b - a))
  console.log(`${String(count).padStart(9)}  ${why}`);
const bad = names.filter(([, { differing }]) => differing > 0);
console.log(
  `\n${outcome.cases} cases in ${Math.round((performance.now() - start) / 1000)} s, ${outcome.differing} differ`,
);
if (bad.length > 0) console.log(`differing: ${bad.map(([name, { differing }]) => `${name} ${differing}`).join(", ")}`);
process.exitCode = outcome.differing === 0 ? 0 : 1;
