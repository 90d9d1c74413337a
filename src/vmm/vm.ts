// The virtual machine without its devices: vCPUs, time, and the run loop. The loop runs on one thread and gives each vCPU a slice in turn:
// fire the timers that are due, take events, execute until the slice's instructions are used up or the engine comes back, look what it wants.
//
// A slice is as long as the next timer is away, and at most SLICE_NS; instructions and time are related by the speed of the slices before.
// In deterministic mode (an `InstructionClock`) a slice is so many instructions, and nothing that decides anything comes from the host.
// When all vCPUs are halted the loop returns with the time at which it has to be called again; the caller sleeps.

import { EXIT } from "../isa/exit.ts";
import type { Clock, TimerQueue } from "./clock.ts";
import { InstructionClock, NS_PER_INSTRUCTION } from "./instruction-clock.ts";
import type { InterruptRouter } from "./io/interrupt-router.ts";
import type { Trace } from "./trace.ts";
import { ACTIVITY_STATE, type Vcpu } from "./vcpu.ts";
import { VCPU_STATE } from "./vcpu-state.ts";

/** How a machine ends. */
export type VmExit =
  | { readonly reason: "reset" }
  | { readonly reason: "power-off" }
  | { readonly reason: "halt" }
  | { readonly reason: "triple-fault" }
  | { readonly reason: "debug-exit"; readonly status: number };

/** Why `Vm.run` returned. */
export type RunOutcome =
  | { readonly kind: "exit"; readonly exit: VmExit }
  /** Nothing to execute until virtual time `wakeAt` (Infinity: until an event from outside). */
  | { readonly kind: "idle"; readonly wakeAt: number }
  /** The caller's `poll` asked for it. */
  | { readonly kind: "yield" };

export interface VmOptions {
  readonly clock: Clock;
  readonly timers: TimerQueue;
  readonly router: InterruptRouter;
  readonly trace: Trace;
  /** False: that all vCPUs here are halted with interrupts off is not the machine's end. True otherwise. */
  readonly haltIsEnd?: boolean;
  /** Called with each vCPU whose slice ran to its end. */
  readonly sample?: ((vcpu: Vcpu) => void) | undefined;
}

/** Virtual nanoseconds of the longest slice: so late may requests of the host be seen. */
const SLICE_NS = 100_000;
/** Instructions of the shortest and the longest slice. */
const BUDGET_MIN = 500;
const BUDGET_MAX = 100_000;
/** Instructions of a slice in deterministic mode, unless a timer is due before. */
const QUANTUM = 20_000;
/** Instructions a nanosecond, before anything is known. */
const INITIAL_SPEED = 0.1;
/** The speed is taken anew from so much time of execution. */
const MEASURED_NS = 200_000;
const STATE_TRACE_NS = 500_000_000;

export class Vm {
  readonly clock: Clock;
  readonly timers: TimerQueue;
  readonly router: InterruptRouter;
  readonly vcpus: Vcpu[] = [];
  readonly statistics = { idles: 0, nsIdle: 0, timerLateMaxNs: 0 };
  private readonly trace: Trace;
  /** The clock of deterministic mode. */
  private readonly instructions: InstructionClock | undefined;
  private readonly haltIsEnd: boolean;
  private readonly sample: VmOptions["sample"];
  private exit: VmExit | undefined;
  private speed = INITIAL_SPEED;
  private measuredInstructions = 0;
  private measuredNs = 0;
  /** The time as the run loop last read it. */
  private now = 0;
  private idleSince = -1;
  private nextStateTrace = 0;

  constructor(options: VmOptions) {
    this.clock = options.clock;
    this.timers = options.timers;
    this.router = options.router;
    this.trace = options.trace;
    this.sample = options.sample;
    this.instructions = options.clock instanceof InstructionClock ? options.clock : undefined;
    this.haltIsEnd = options.haltIsEnd ?? true;
  }

  addVcpu(vcpu: Vcpu): void {
    this.vcpus.push(vcpu);
    this.router.addLocalApic(vcpu.apic);
  }

  /** Ends the machine: the first reason counts. Devices call it from within a guest's access. */
  end(exit: VmExit): void {
    this.exit ??= exit;
    for (const vcpu of this.vcpus) vcpu.requestExit();
  }

  /** Why the machine has ended, or undefined. */
  get ended(): VmExit | undefined {
    return this.exit;
  }

  /** RESET of all vCPUs and their APICs at virtual time `at`, from which their TSCs count alike; the machine may run again. Time goes on. */
  reset(at = this.clock.now()): void {
    for (const vcpu of this.vcpus) vcpu.reset(at);
    this.exit = undefined;
    this.idleSince = -1;
  }

  /** Runs until the machine ends, all vCPUs are halted, or `poll`, asked after every slice, gives true. */
  run(poll: () => boolean): RunOutcome {
    for (const vcpu of this.vcpus) vcpu.host.enter(VCPU_STATE.FROZEN);
    let idle = false;
    try {
      const outcome = this.loop(poll);
      idle = outcome.kind === "idle";
      return outcome;
    } finally {
      for (const vcpu of this.vcpus) vcpu.host.enter(idle ? VCPU_STATE.SLEEPING : VCPU_STATE.IDLE);
    }
  }

  private loop(poll: () => boolean): RunOutcome {
    this.now = this.clock.now();
    if (this.idleSince >= 0) {
      this.statistics.nsIdle += this.now - this.idleSince;
      this.idleSince = -1;
    }
    for (;;) {
      if (this.exit !== undefined) return { kind: "exit", exit: this.exit };
      const outcome = this.turn(poll);
      if (outcome !== undefined) return outcome;
    }
  }

  /** One slice of each vCPU. Not within the loop around it: what V8 optimizes while it runs is given up at the end of each inner loop. */
  private turn(poll: () => boolean): RunOutcome | undefined {
    this.fireTimers(this.now);
    let ran = false;
    for (const vcpu of this.vcpus) {
      const runs = vcpu.prepare();
      // Delivering an event may have been the third fault in a row.
      if (vcpu.activity === ACTIVITY_STATE.SHUTDOWN) this.end({ reason: "triple-fault" });
      if (!runs || this.exit !== undefined) continue;
      ran = true;
      this.now = this.slice(vcpu, this.now);
      if (this.vcpus.length > 1) this.fireTimers(this.now);
    }
    if (this.exit !== undefined) return undefined;
    if (ran) return poll() ? { kind: "yield" } : undefined;
    // SDM Vol. 2A HLT: with interrupts off only NMI, INIT and RESET end it, and no processor is left that could send one.
    if (this.haltIsEnd && this.vcpus.every((vcpu) => vcpu.deaf)) {
      this.end({ reason: "halt" });
      return undefined;
    }
    this.statistics.idles++;
    const wakeAt = this.timers.next();
    if (this.instructions === undefined || wakeAt === Number.POSITIVE_INFINITY) {
      this.idleSince = this.now;
      return { kind: "idle", wakeAt };
    }
    this.instructions.skipTo(wakeAt);
    this.statistics.nsIdle += this.instructions.now() - this.now;
    this.now = this.instructions.now();
    return poll() ? { kind: "yield" } : undefined;
  }

  private fireTimers(now: number): void {
    const next = this.timers.next();
    if (next > now) return;
    if (now - next > this.statistics.timerLateMaxNs) this.statistics.timerLateMaxNs = now - next;
    this.timers.run(now);
  }

  /** One slice of one vCPU from `now` on; the time after it. */
  private slice(vcpu: Vcpu, now: number): number {
    const { instructions } = this;
    const longest = instructions === undefined ? SLICE_NS : QUANTUM * NS_PER_INSTRUCTION;
    const sliceEnd = Math.min(now + longest, this.timers.next());
    let budget = Math.min(Math.max(Math.round((sliceEnd - now) * this.speed), BUDGET_MIN), BUDGET_MAX);
    if (instructions !== undefined) budget = Math.max(1, Math.ceil((sliceEnd - now) / NS_PER_INSTRUCTION));
    if (this.trace.blocks !== undefined) budget = 1;
    const before = vcpu.engine.retired();
    instructions?.begin(vcpu.engine);
    const reason = vcpu.run(budget, sliceEnd);
    instructions?.end();
    this.trace.blocks?.(vcpu.position());
    const after = this.clock.now();
    this.measure(vcpu.engine.retired() - before, after - now);
    if (reason === EXIT.BUDGET) this.sample?.(vcpu);
    if (reason === EXIT.SHUTDOWN) this.end({ reason: "triple-fault" });
    if (this.trace.state !== undefined && after >= this.nextStateTrace) {
      this.nextStateTrace = after + STATE_TRACE_NS;
      this.trace.state(`${(after / 1e9).toFixed(3)} s, ${vcpu.engine.retired()} instructions, ${vcpu.position()}`);
    }
    return after;
  }

  private measure(instructions: number, ns: number): void {
    this.measuredInstructions += instructions;
    this.measuredNs += ns;
    if (this.measuredNs < MEASURED_NS) return;
    this.speed += (this.measuredInstructions / this.measuredNs - this.speed) / 4;
    this.measuredInstructions = 0;
    this.measuredNs = 0;
  }
}
