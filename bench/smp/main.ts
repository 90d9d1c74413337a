// npm run bench:smp: several vCPUs at work together, under skep and under QEMU's multi-threaded translator, and what it costs when they idle.

import { spawnSync } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { debianGuest } from "../../src/host/node/debian-guest.ts";
import { buildInitramfs } from "../../src/host/node/initramfs.ts";
import { assemble } from "../../test/guests/assemble.ts";
import { type GuestRun, MARK, runGuest } from "../guest-run.ts";
import { type Summary, summarize } from "../table.ts";

const HELP = `Usage: npm run bench:smp -- [options]

  --only A,B         only these workloads (see --list)
  --rounds N         boots of each emulator, medians are shown (1)
  --scale N          work per workload, times N (5: some seconds each, so that the second run is not about new code)
  --cpus N           virtual CPUs (2)
  --idle-cpus N      virtual CPUs of the machine that is watched while it idles (8); 0 leaves that out
  --qemu-only        leave skep out
  --skep-only        leave QEMU out
  --list             print the workloads' names
  -- ARGS            further arguments for "skep run"
`;

/** What a row must reach against QEMU, as QEMU's time over skep's. */
const SPEED_BAR = 1;
const SPEED_ROWS = ["futex-turns", "spin-turns", "mutex", "increments", "ipi", "shootdown", "make-2", "pipes"];
/** Two busy processes on two vCPUs, as a multiple of the time of one. */
const TWO_BAR = 1.1;
/** Microseconds from one running vCPU to the other and back, two interrupts, without an operating system (ipi.S). */
const IPI_BAR = 5;
/** Times of `ipi`: the barrier's system call, the interrupt and its acknowledgement. */
const IPI_COUNT = 20_000;
/** Percent of a core. */
const IDLE_BAR = 2;
const IDLE_SECONDS = 5;
const TIMEOUT_MS = 300_000;

const here = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

interface Machine {
  readonly kernel: string;
  readonly initrd?: string;
  readonly cpus: number;
}

/** Gives each vCPU's thread a CPU of the host: a host may pack threads on one otherwise. */
async function pinThreads(pid: number): Promise<void> {
  for (const task of await readdir(`/proc/${pid}/task`)) {
    const name = await readFile(`/proc/${pid}/task/${task}/comm`, "utf8").catch(() => "");
    const number = /^(?:vcpu|CPU )(\d+)/.exec(name)?.[1];
    if (number !== undefined) spawnSync("taskset", ["-cp", String(Number(number) % cpus().length), task]);
  }
}

function qemu(machine: Machine): string[] {
  const command = [
    "qemu-system-x86_64",
    "-name",
    "bench,debug-threads=on",
    "-accel",
    "tcg,thread=multi",
    "-cpu",
    "max",
  ];
  command.push("-m", "512M", "-smp", String(machine.cpus), "-nodefaults", "-no-user-config", "-display", "none");
  command.push("-serial", "stdio", "-no-reboot", "-kernel", machine.kernel);
  if (machine.initrd !== undefined) command.push("-initrd", machine.initrd);
  return [...command, "-append", "console=ttyS0 panic=-1"];
}

function skep(machine: Machine, extra: readonly string[]): string[] {
  const command = [here("../../bin/skep"), "run", "--kernel", machine.kernel];
  if (machine.initrd !== undefined) command.push("--initrd", machine.initrd);
  command.push("--append", "console=ttyS0 panic=-1", "--memory", "512M", "--cpus", String(machine.cpus));
  return [...command, ...extra];
}

function run(command: readonly string[]): Promise<GuestRun> {
  return runGuest(command, TIMEOUT_MS, (pid) => pinThreads(pid));
}

function natural(text: string, name: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0) throw new Error(`--${name} takes a whole number, not "${text}"`);
  return value;
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      only: { type: "string" },
      rounds: { type: "string", default: "1" },
      scale: { type: "string", default: "5" },
      cpus: { type: "string", default: "2" },
      "idle-cpus": { type: "string", default: "8" },
      "qemu-only": { type: "boolean", default: false },
      "skep-only": { type: "boolean", default: false },
      list: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  const folder = await mkdtemp(join(tmpdir(), "skep-bench-"));
  try {
    const program = join(folder, "smp");
    const gcc = spawnSync("gcc", ["-O2", "-static", "-pthread", "-o", program, here("smp.c")], { encoding: "utf8" });
    if (gcc.status !== 0) throw new Error(`gcc failed: ${gcc.error?.message ?? gcc.stderr}`);
    const all = spawnSync(program, ["--list"], { encoding: "utf8" }).stdout.trim().split("\n");
    if (values.list) {
      console.log(all.join("\n"));
      return 0;
    }
    const names = values.only?.split(",") ?? all;
    const unknown = names.find((name) => !all.includes(name));
    if (unknown !== undefined) throw new Error(`there is no workload "${unknown}" (see --list)`);
    const scale = natural(values.scale, "scale");
    const rounds = natural(values.rounds, "rounds");

    const { kernel, busybox } = await debianGuest({ flavour: "cloud" });
    const data = await readFile(program);
    const initramfs = async (name: string, script: readonly string[]): Promise<string> => {
      const path = join(folder, name);
      const files = { smp: { data, mode: 0o755 } };
      await writeFile(path, await buildInitramfs({ busybox, script: `${script.join("\n")}\n`, files }));
      return path;
    };
    const work = [`echo ${MARK.userspace}`, "sleep 1", `/smp --scale ${scale} ${names.join(" ")}`, `echo ${MARK.done}`];
    const rest = [`echo ${MARK.userspace}`, "sleep 3", `echo ${MARK.idle}`, `sleep ${IDLE_SECONDS}`];
    rest.push(`echo ${MARK.awake}`, `echo ${MARK.done}`);
    const busy: Machine = {
      kernel,
      initrd: await initramfs("work.cpio", work),
      cpus: Math.max(2, natural(values.cpus, "cpus")),
    };
    const idleCpus = natural(values["idle-cpus"], "idle-cpus");
    const idle: Machine = { kernel, initrd: await initramfs("idle.cpio", rest), cpus: idleCpus };

    const emulators = [
      { name: "QEMU", wanted: !values["skep-only"], command: qemu },
      { name: "skep", wanted: !values["qemu-only"], command: (machine: Machine) => skep(machine, positionals) },
    ].filter(({ wanted }) => wanted);
    const results = new Map<string, Result>();
    let failed = false;
    const checked = (name: string, result: GuestRun): GuestRun => {
      if (result.failure !== undefined) {
        failed = true;
        process.stderr.write(`${name}: ${result.failure}\n${result.tail.replace(/^/gm, "  | ")}\n`);
      }
      return result;
    };
    const runs = new Map<string, GuestRun[]>(emulators.map(({ name }) => [name, []]));
    for (let round = 1; round <= rounds; round++)
      for (const { name, command } of emulators) {
        process.stderr.write(`round ${round} of ${rounds}: ${name} ...\n`);
        runs.get(name)?.push(checked(name, await run(command(busy))));
      }
    for (const { name, command } of emulators) {
      const idlePercent = idleCpus === 0 ? undefined : checked(name, await run(command(idle))).idlePercent;
      const alone = { kernel: assemble("ipi", here(".")), cpus: 2 };
      const ipis = names.includes("ipi") ? [...checked(name, await run(command(alone))).workloads] : [];
      // The checksum is the number of rounds.
      const ipiUs = ipis.map(
        ([mode, { second, checksum }]) => [mode, second / 1000 / Number.parseInt(checksum, 16)] as const,
      );
      results.set(name, { summary: summarize(runs.get(name) ?? []), idlePercent, ipiUs });
    }
    print(names, results, scale, idleCpus);
    return failed ? 1 : 0;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

interface Result {
  readonly summary: Summary;
  readonly idlePercent: number | undefined;
  /** Microseconds of a round of ipi.S, by the mode of the local APICs. */
  readonly ipiUs: readonly (readonly [mode: string, us: number])[];
}

function print(names: readonly string[], results: ReadonlyMap<string, Result>, scale: number, idleCpus: number): void {
  const time = (emulator: string, name: string): number | undefined =>
    results.get(emulator)?.summary.workloads.get(name)?.ms;
  const text = (value: number | undefined, digits = 1): string => (value === undefined ? "-" : value.toFixed(digits));
  const short: string[] = [];
  console.log(`${new Date().toISOString().slice(0, 10)}, ${cpus()[0].model}, ${cpus().length} CPUs\n`);
  console.log("                QEMU ms   skep ms   speed   1st/2nd");
  for (const name of names) {
    const [theirs, ours] = [time("QEMU", name), time("skep", name)];
    const speed = theirs === undefined || ours === undefined ? undefined : theirs / ours;
    const warmUp = results.get("skep")?.summary.workloads.get(name)?.warmUp;
    const cells = [text(theirs).padStart(9), text(ours).padStart(9), text(speed, 2).padStart(7)];
    console.log(`${name.padEnd(13)} ${cells.join(" ")} ${text(warmUp, 2).padStart(9)}`);
    if (speed !== undefined && speed < SPEED_BAR && SPEED_ROWS.includes(name))
      short.push(`${name} runs at ${speed.toFixed(2)} times QEMU's speed, ${SPEED_BAR} is the bar`);
  }
  console.log("");
  for (const [emulator, { summary, idlePercent, ipiUs }] of results) {
    const ms = (name: string): number => summary.workloads.get(name)?.ms ?? Number.NaN;
    const two = ms("two-busy") / ms("one-busy");
    const barrier = (ms("ipi") * 1000) / (IPI_COUNT * scale);
    const alone = ipiUs.map(([mode, us]) => `, ${mode} there and back ${text(us)} us`).join("");
    console.log(
      `${emulator}: boot ${text(summary.bootMs)} ms, two busy processes take ${two.toFixed(2)} times the time of one${alone}, an IPI with Linux around it ${barrier.toFixed(1)} us, ${idleCpus} idle vCPUs ${text(idlePercent, 2)} % of a core`,
    );
    if (emulator !== "skep") continue;
    if (two > TWO_BAR)
      short.push(`two busy processes take ${two.toFixed(2)} times the time of one, ${TWO_BAR} is the bar`);
    for (const [mode, us] of ipiUs)
      if (us > IPI_BAR) short.push(`${mode} there and back takes ${text(us)} us, ${IPI_BAR} is the bar`);
    if ((idlePercent ?? 0) > IDLE_BAR) short.push(`${idleCpus} idle vCPUs take ${text(idlePercent, 2)} % of a core`);
  }
  for (const line of short) console.log(`falls short: ${line}`);
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(`bench:smp: ${error instanceof Error ? error.message : error}`);
  process.exitCode = 1;
}
