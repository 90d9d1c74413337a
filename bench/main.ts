// npm run bench: boots the same kernel and initramfs under QEMU TCG and under skep, runs the same workloads in both, and prints ratios.

import { spawnSync } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { buildGuest, buildWorkloads } from "./guest.ts";
import type { GuestRun } from "./guest-run.ts";
import { runQemu } from "./qemu.ts";
import { runSkep } from "./skep.ts";
import { summarize, table } from "./table.ts";

const HELP = `Usage: npm run bench -- [options]

  --only A,B         only these workloads (see --list); "boot" alone boots and stops
  --rounds N         boots of each emulator, medians are shown (5)
  --scale N          work per workload, times N (1)
  --qemu-only        leave skep out
  --skep-only        leave QEMU out
  --no-idle          leave out the seconds in which the guest sleeps
  --engine A,B       skep's engines to measure (translate); the bars are for the first
  --pin CPUS         run all on these CPUs (taskset -c; 0,1), or "none"
  --markdown         print the table for a page
  --timeout SECONDS  end one boot after this time (600)
  --list             print the workloads' names
  -- ARGS            further arguments for "skep run"
`;

/** Two of them: the translator works on a thread of its own. */
const PIN = cpus().length > 1 ? "0,1" : "0";

function isPresent<T>(entry: readonly [string, T | undefined]): entry is readonly [string, T] {
  return entry[1] !== undefined;
}

function positive(text: string, name: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new Error(`--${name} takes a positive whole number, not "${text}"`);
  return value;
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      only: { type: "string" },
      rounds: { type: "string", default: "5" },
      scale: { type: "string", default: "1" },
      "qemu-only": { type: "boolean", default: false },
      "skep-only": { type: "boolean", default: false },
      "no-idle": { type: "boolean", default: false },
      engine: { type: "string", default: "translate" },
      pin: { type: "string", default: PIN },
      markdown: { type: "boolean", default: false },
      timeout: { type: "string", default: "600" },
      list: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  const rounds = positive(values.rounds, "rounds");
  const scale = positive(values.scale, "scale");
  const timeoutMs = positive(values.timeout, "timeout") * 1000;
  const prefix = values.pin === "none" ? [] : ["taskset", "-c", values.pin];
  const engines = values["qemu-only"] ? [] : values.engine.split(",");

  const folder = await mkdtemp(join(tmpdir(), "skep-bench-"));
  try {
    const { program, names: all } = await buildWorkloads(folder);
    if (values.list) {
      console.log(all.join("\n"));
      return 0;
    }
    const wanted = values.only?.split(",").filter((name) => name !== "boot" && name !== "idle");
    for (const name of wanted ?? [])
      if (!all.includes(name)) throw new Error(`there is no workload "${name}" (see --list)`);
    const names = wanted ?? all;
    const idle = values.only === undefined ? !values["no-idle"] : values.only.split(",").includes("idle");
    const guest = await buildGuest(folder, program, names, { scale, idle });

    // The host's own times, and its checksums to hold the guests' against.
    const [command, ...args] = [...prefix, program, "--scale", String(scale), ...names];
    const { stdout } = spawnSync(command, args, { encoding: "utf8" });
    const native = new Map(
      [...stdout.matchAll(/^BENCH (\S+) 2 (\d+) (\S+)$/gm)].map(([, name, ns, checksum]) => [
        name,
        { ms: Number(ns) / 1e6, checksum },
      ]),
    );

    const emulators = [
      { name: "QEMU", wanted: !values["skep-only"], run: () => runQemu(guest, prefix, timeoutMs) },
      ...engines.map((engine) => ({
        name: engine,
        wanted: true,
        run: () => runSkep(guest, prefix, timeoutMs, engine, positionals),
      })),
    ].filter((emulator) => emulator.wanted);
    const runs = new Map<string, GuestRun[]>();
    let failed = false;
    // In turn, so that a slower spell of the machine meets both.
    for (let round = 1; round <= rounds; round++) {
      for (const emulator of emulators) {
        process.stderr.write(`round ${round} of ${rounds}: ${emulator.name} ...\n`);
        const run = await emulator.run();
        runs.set(emulator.name, [...(runs.get(emulator.name) ?? []), run]);
        if (run.failure !== undefined) {
          failed = true;
          process.stderr.write(`${emulator.name}: ${run.failure}\n${run.tail.replace(/^/gm, "  | ")}\n`);
        }
      }
    }
    const summary = (name: string) => {
      const list = runs.get(name);
      return list === undefined ? undefined : summarize(list);
    };
    const measured = {
      qemu: summary("QEMU"),
      engines: new Map(engines.flatMap((engine) => [[engine, summary(engine)] as const]).filter(isPresent)),
      native,
    };
    const whole = names.length === all.length;
    const { lines, short } = table(names, measured, { scale, markdown: values.markdown, whole });
    const pinned = values.pin === "none" ? "not pinned" : `pinned to CPU ${values.pin}`;
    console.log(
      `${new Date().toISOString().slice(0, 10)}, ${cpus()[0].model}, ${cpus().length} CPUs, ${pinned}, rounds: ${rounds}; ` +
        "milliseconds, and speed as QEMU's time over skep's\n",
    );
    console.log(lines.join("\n"));
    for (const line of short) console.log(`${values.markdown ? "- " : ""}falls short: ${line}`);
    return failed ? 1 : 0;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(`bench: ${error instanceof Error ? error.message : error}`);
  process.exitCode = 1;
}
