// Random points in the boots of a machine whose vCPUs have a thread each. At a point the machine is paused and resumed, reset, or saved; what was
// saved goes on in a new machine and the old one is thrown away. Each boot has to come to its end as if nothing had been.

import { isDeepStrictEqual } from "node:util";
import { debianGuest } from "../../src/host/node/debian-guest.ts";
import { buildInitramfs } from "../../src/host/node/initramfs.ts";
import { SkepError, VirtualMachine, type VirtualMachineOptions } from "../../src/index.ts";
import { Random } from "../oracle/random.ts";
import { COMMAND_LINE, REPORT, troubleOf } from "./guest-run.ts";
import { atMost, machineState, pause } from "./machine-state.ts";
import { whileLocked } from "./quiet-lock.ts";
import { say, secondsText, tell } from "./report.ts";

export const POINT_KINDS = ["pause", "save", "reset"] as const;
export type PointKind = (typeof POINT_KINDS)[number];
export type PointCounts = { [kind in PointKind]: number };

/** How often which, of 100. */
const SAVES = 35;
const RESETS = 8;
/** Guest code runs at most so long between two points. */
const BETWEEN_MS = 250;
const COMMAND_MS = 60_000;

export interface PointsBoot {
  readonly seed: number;
  /** At most so many: the boot may end before. */
  readonly points: number;
  readonly cpus: number;
  readonly limitSeconds: number;
}

export interface PointsResult {
  readonly counts: PointCounts;
  readonly wrong: readonly string[];
  readonly state: string | undefined;
  readonly console: string;
  readonly seconds: number;
}

/** One boot, interrupted. */
class InterruptedBoot {
  readonly counts: PointCounts = { pause: 0, save: 0, reset: 0 };
  /** Of all machines of the boot since the last reset. */
  console = "";
  private readonly options: VirtualMachineOptions;
  private readonly random: Random;
  private vm: VirtualMachine;
  private output: Promise<void>;
  private ended = false;

  constructor(options: VirtualMachineOptions, seed: number, vm: VirtualMachine) {
    this.options = options;
    this.random = new Random(seed);
    this.vm = vm;
    this.output = this.follow(vm);
  }

  get machine(): VirtualMachine {
    return this.vm;
  }

  /** Gives how the last machine ended. */
  async run(points: number): Promise<string> {
    await this.command("start", this.vm.start());
    for (let n = 0; n < points && !this.ended; n++) {
      // Also points that come right after one another.
      if (!this.random.chance(10)) await pause(this.random.below(BETWEEN_MS));
      const kind = this.random.chance(SAVES) ? "save" : this.random.chance(RESETS) ? "reset" : "pause";
      try {
        await this.point(kind);
        this.counts[kind]++;
      } catch (error) {
        // The machine may end at any of these.
        if (!(error instanceof SkepError && error.code === "state")) throw error;
        await this.vm.resume().catch(() => undefined);
      }
    }
    const { reason, message } = await this.vm.exited;
    await this.output;
    return message ?? reason;
  }

  private async point(kind: PointKind): Promise<void> {
    if (kind === "reset") {
      await this.command("reset", this.vm.reset());
      this.console = "";
      return;
    }
    await this.command("pause", this.vm.pause());
    if (kind === "save") await this.save();
    else await this.command("resume", this.vm.resume());
  }

  private async save(): Promise<void> {
    const old = this.vm;
    const snapshot = await this.command("snapshot", old.snapshot());
    const next = await this.command("create", VirtualMachine.create({ ...this.options, snapshot }));
    const again = await this.command("snapshot", next.snapshot());
    if (!isDeepStrictEqual(again.state, snapshot.state)) throw new Error("what was restored is not what was saved");
    this.vm = next;
    await this.command("stop", old.stop());
    await this.output;
    this.output = this.follow(next);
    await this.command("start", next.start());
  }

  private async follow(vm: VirtualMachine): Promise<void> {
    const ended = vm.exited.then(() => {
      if (vm === this.vm) this.ended = true;
    });
    const decoder = new TextDecoder("latin1");
    for await (const chunk of vm.serial.readable) this.console += decoder.decode(chunk);
    await ended;
  }

  private command<T>(what: string, done: Promise<T>): Promise<T> {
    return atMost(COMMAND_MS, what, done);
  }
}

export async function interruptedBoot({ seed, points, cpus, limitSeconds }: PointsBoot): Promise<PointsResult> {
  const start = performance.now();
  const { kernel, busybox } = await debianGuest({ flavour: "cloud" });
  const options: VirtualMachineOptions = {
    kernel,
    initrd: await buildInitramfs({ busybox, script: REPORT }),
    commandLine: COMMAND_LINE,
    memory: "256M",
    cpus,
    threads: "each",
    engine: "translate",
  };
  const boot = new InterruptedBoot(options, seed, await VirtualMachine.create(options));
  const wrong: string[] = [];
  let state: string | undefined;
  try {
    const ended = await atMost(limitSeconds * 1000, "the boot", boot.run(points));
    if (ended !== "power-off") wrong.push(`the machine ended: ${ended}`);
  } catch (error) {
    wrong.push(error instanceof Error ? error.message : String(error));
    state = await machineState(process.pid, (request) => boot.machine.control(request));
  } finally {
    await boot.machine.stop();
  }
  wrong.push(...troubleOf(boot.console, cpus));
  const { counts, console } = boot;
  return { counts, wrong, state, console, seconds: (performance.now() - start) / 1000 };
}

export interface Points {
  readonly points: number;
  /** At most so many in a boot. */
  readonly each: number;
  readonly cpus: number;
  readonly seed: number;
  readonly limitSeconds: number;
  readonly lock: string | undefined;
}

/** Boots until there were as many points; each boot has the seed of the one before it plus one. */
export async function runPoints({ points, each, cpus, seed, limitSeconds, lock }: Points): Promise<number> {
  const counts: PointCounts = { pause: 0, save: 0, reset: 0 };
  const seconds: number[] = [];
  let done = 0;
  let failures = 0;
  for (let n = 0; done < points; n++) {
    const boot = { seed: seed + n, points: Math.min(each, points - done), cpus, limitSeconds };
    const result = await whileLocked(lock, () => interruptedBoot(boot));
    for (const kind of POINT_KINDS) {
      counts[kind] += result.counts[kind];
      done += result.counts[kind];
    }
    seconds.push(result.seconds);
    const { pause, save, reset } = result.counts;
    say(`seed ${boot.seed}: ${pause} pauses, ${save} saves, ${reset} resets, ${result.seconds.toFixed(1)} s; ${done}`);
    if (result.wrong.length === 0) continue;
    failures++;
    tell({ what: `--seed ${boot.seed} --points ${boot.points}`, ...result });
  }
  const { pause, save, reset } = counts;
  say(`${done} points in ${seconds.length} boots: ${pause} pauses, ${save} saves, ${reset} resets`);
  say(`${failures} boots failed, ${secondsText(seconds)}`);
  return failures;
}
