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
  --rounds N         boots of each emulator, medians are shown (1)
  --scale N          work per workload, times N (1)
  --qemu-only        leave skep out
  --skep-only        leave QEMU out
  --no-idle          leave out the seconds in which the guest sleeps
  --pin CPUS         run both on these CPUs (taskset -c)
  --timeout SECONDS  end one boot after this time (600)
  --list             print the workloads' names
  -- ARGS            further arguments for "skep run"
`;

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
      rounds: { type: "string", default: "1" },
      scale: { type: "string", default: "1" },
      "qemu-only": { type: "boolean", default: false },
      "skep-only": { type: "boolean", default: false },
      "no-idle": { type: "boolean", default: false },
      pin: { type: "string" },
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
  const prefix = values.pin === undefined ? [] : ["taskset", "-c", values.pin];

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

    // The host's own checksums, to hold the guests' against.
    const native = spawnSync(program, ["--scale", String(scale), ...names], { encoding: "utf8" });
    const expected = new Map(
      [...native.stdout.matchAll(/^BENCH (\S+) 2 \d+ (\S+)$/gm)].map((match) => [match[1], match[2]]),
    );

    const emulators = [
      { name: "QEMU", wanted: !values["skep-only"], run: () => runQemu(guest, prefix, timeoutMs) },
      { name: "skep", wanted: !values["qemu-only"], run: () => runSkep(guest, prefix, timeoutMs, positionals) },
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
    const { lines, short } = table(names, summary("QEMU"), summary("skep"), expected, scale);
    console.log(
      `${new Date().toISOString().slice(0, 10)}, ${cpus()[0].model}, ${cpus().length} CPUs, rounds: ${rounds}\n`,
    );
    console.log(lines.join("\n"));
    for (const line of short) console.log(`falls short: ${line}`);
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
