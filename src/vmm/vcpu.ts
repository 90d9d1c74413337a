// One virtual CPU: an engine that executes it, its local APIC, and what lies between them: events in their order, exits that are answered in
// place, the MSRs that are no plain storage. SDM Vol. 3A 6.9 (priority among simultaneous events), 6.8 (enabling interrupts), 9.4 (INIT, SIPI).
//
// Events from outside are only noted when they come. They are looked at before each entry, in one place: an NMI before a maskable interrupt,
// the 8259's before the APIC's, nothing over an exception that is being delivered, one event an entry. What cannot be taken now is announced
// to the engine, which comes back as soon as it can. The 8259 is asked for its vector only when the vCPU takes the interrupt.

import { ANOMALY } from "../isa/anomaly.ts";
import { EXIT } from "../isa/exit.ts";
import { ACTIVITY, CPL, FLAG, PENDING_VECTOR, RFLAGS, RIP, SEGMENTS, SREG, TSC_OFFSET } from "../isa/state.ts";
import type { AccessSize, AnomalyLog } from "./bus.ts";
import type { Clock, TimerQueue } from "./clock.ts";
import { type Engine, type EngineHost, EVENT, INJECT, type MemorySlot } from "./engine.ts";
import type { ApicBus } from "./io/apic-bus.ts";
import { ApicMode } from "./io/destination.ts";
import { LocalApic } from "./io/lapic.ts";
import type { IoAccess } from "./io-space.ts";
import { slotsWithoutPage } from "./memory.ts";
import type { Schema, Stateful } from "./state.ts";
import type { Trace } from "./trace.ts";
import { CRYSTAL_HZ, timeOfTsc, tscAt } from "./tsc.ts";
import { VCPU_STATE, VcpuStateMachine } from "./vcpu-state.ts";

/** Values of the ACTIVITY field (SDM Vol. 3C 25.4.2). */
export const ACTIVITY_STATE = { RUNNING: 0, HALTED: 1, SHUTDOWN: 2, WAIT_FOR_SIPI: 3 } as const;

const NO_EXCEPTION = 0xffffffff;
const NMI_VECTOR = 2;
/** So often a vCPU may execute PAUSE in a slice before another one gets its turn: what it waits for will not come before that. */
const PAUSES = 8;
const APIC_PAGE_BYTES = 0x1000;
const TWO_32 = 2 ** 32;
const MSR = { APIC_BASE: 0x1b, TSC_DEADLINE: 0x6e0, X2APIC_FIRST: 0x800, X2APIC_LAST: 0x8ff } as const;

const EXIT_NAMES: { readonly [reason: number]: string } = Object.fromEntries(
  Object.entries(EXIT).map(([name, reason]) => [reason, name]),
);
const ANOMALY_NAMES: { readonly [number: number]: string } = Object.fromEntries(
  Object.entries(ANOMALY).map(([name, number]) => [number, name.toLowerCase().replaceAll("_", " ")]),
);

/** Tells the other vCPUs of translated code (`Engine.protectPage`, `Engine.codeWritten`). */
export interface CodePages {
  protectPage(page: number, by: Engine): void;
  codeWritten(host: number, length: number, by: Engine): void;
}

export interface VcpuOptions {
  readonly id: number;
  readonly apicId: number;
  readonly bootstrap: boolean;
  readonly clock: Clock;
  readonly timers: TimerQueue;
  readonly io: IoAccess;
  readonly bus: ApicBus;
  readonly anomalies: AnomalyLog;
  readonly features: ReadonlySet<string>;
  /** MSRs that the processor has not read as zero, and writes to them are dropped, instead of #GP(0) (SDM Vol. 2B, RDMSR). */
  readonly ignoreUnknownMsrs: boolean;
  readonly physicalAddressBits: number;
  /** Guest memory, as the engine was made with. */
  readonly slots: readonly MemorySlot[];
  readonly trace: Trace;
  /** The interrupt acknowledge cycle at the 8259 pair; gives the vector. */
  acknowledgePic(): number;
  random32(): number;
  readonly code: CodePages;
  /** Other vCPUs run on the same thread: one that waits for them gives way. */
  readonly sharesThread?: boolean;
  createEngine(host: EngineHost): Engine;
  /** Where other threads ask things of this vCPU. */
  readonly posted?: PostedRequests;
}

/** What other threads want of a vCPU, and what they have to know of it. */
export interface PostedRequests {
  /** Whether there is anything. */
  requested(): boolean;
  /** Takes it: into the local APIC, and into the engine. From now on the vCPU counts as one that executes guest code: what it is interrupted by
   *  writes to guest memory, and others must not believe meanwhile that it will take what they post before it does. */
  take(): void;
  /** The vCPU enters guest code, or has nothing to execute. */
  running(running: boolean): void;
}

export class Vcpu implements Stateful {
  readonly schema: Schema = {
    kind: "vcpu-events",
    version: 1,
    fields: { nmiPending: "bool", initPending: "bool" },
    derived: [
      "id",
      "apic",
      "engine",
      "host",
      "states",
      "statistics",
      "options",
      "apicPage",
      "attention",
      "waiting",
      "sliceEnd",
      "tscOffset",
      "source",
    ],
  };

  readonly id: number;
  readonly apic: LocalApic;
  readonly engine: Engine;
  readonly host = new VcpuStateMachine();
  readonly statistics = {
    entries: 0,
    exitsBudget: 0,
    exitsHalt: 0,
    exitsWindow: 0,
    exitsOther: 0,
    interruptsInjected: 0,
    picInterruptsInjected: 0,
    nmisInjected: 0,
    inits: 0,
    startups: 0,
    msrReads: 0,
    msrWrites: 0,
  };
  private nmiPending = false;
  private initPending = false;

  private readonly options: VcpuOptions;
  private readonly source: string;
  /** Where the local APIC's registers are, or -1 where they are in no memory. */
  private apicPage = -1;
  /** Something came that the next entry is to look at. */
  private attention = false;
  /** What the engine was told is waiting (EVENT bits). */
  private waiting = 0;
  /** Virtual time at which the present run is to end: a timer that is set to before it ends it early. */
  private sliceEnd = 0;
  private tscOffset = 0n;

  constructor(options: VcpuOptions) {
    this.options = options;
    this.id = options.id;
    this.source = `vcpu${options.id}`;
    const { trace } = options;
    this.apic = new LocalApic({
      id: options.apicId,
      bootstrap: options.bootstrap,
      timers: options.timers,
      bus: options.bus,
      anomalies: options.anomalies,
      timerFrequency: CRYSTAL_HZ,
      tscToNs: (tsc) => timeOfTsc(tsc, this.engine.get(TSC_OFFSET) as bigint, options.clock.now()),
      x2apic: options.features.has("x2apic"),
      tscDeadline: options.features.has("tsc_deadline_timer"),
      physicalAddressBits: options.physicalAddressBits,
      trace: trace.interrupts,
      onBaseChanged: (base, mode) => this.placeApic(mode === ApicMode.XAPIC ? base : -1),
      events: {
        interruptPending: () => this.notice(),
        nmi: () => this.requestNmi(),
        init: () => {
          this.initPending = true;
          // An INIT clears pending events (SDM Vol. 3C 26.2, INIT signals), not those that come after it.
          this.nmiPending = false;
          this.notice();
        },
        startup: (vector) => this.startup(vector),
      },
    });
    this.engine = options.createEngine(this.engineHost());
    if (!options.bootstrap) this.engine.set(ACTIVITY, ACTIVITY_STATE.WAIT_FOR_SIPI);
  }

  // ---- The run loop's side ----

  get activity(): number {
    return this.engine.get(ACTIVITY) as number;
  }

  /**
   * Inactive, and nothing that has come ends it, nor does a maskable interrupt. An NMI ends HLT where NMIs are not blocked by one that is being
   * handled (SDM Vol. 2A HLT, Vol. 3A 6.7.1), and not the wait for a SIPI (`takeEvents`). With SHUTDOWN the machine ends.
   */
  get deaf(): boolean {
    const { activity } = this;
    if (activity === ACTIVITY_STATE.RUNNING || this.initPending) return false;
    if (activity === ACTIVITY_STATE.WAIT_FOR_SIPI || activity === ACTIVITY_STATE.SHUTDOWN) return true;
    if (this.nmiPending && this.engine.canInject(INJECT.NMI)) return false;
    return ((this.engine.get(RFLAGS) as number) & FLAG.IF) === 0;
  }

  /** Takes what has come from outside. True where the vCPU has instructions to execute now. */
  prepare(): boolean {
    this.options.posted?.take();
    if (this.attention || this.waiting !== 0) this.takeEvents();
    const runs = this.activity === ACTIVITY_STATE.RUNNING;
    if (!runs) this.options.posted?.running(false);
    return runs;
  }

  /** Executes about `budget` instructions, not beyond virtual time `sliceEnd` as far as timers set meanwhile ask for it; an EXIT reason. */
  run(budget: number, sliceEnd: number): number {
    this.sliceEnd = sliceEnd;
    this.statistics.entries++;
    this.host.enter(VCPU_STATE.RUNNING);
    this.options.posted?.running(true);
    let reason: number;
    try {
      reason = this.engine.run(budget, this.options.sharesThread ? PAUSES : 0);
    } finally {
      this.host.enter(VCPU_STATE.FROZEN);
    }
    this.count(reason);
    this.options.trace.exits?.(`${this.source} ${EXIT_NAMES[reason] ?? reason} at ${this.position()}`);
    this.followTsc();
    return reason;
  }

  /** An NMI from outside, as from the button on a front panel. */
  requestNmi(): void {
    this.nmiPending = true;
    this.notice();
  }

  /** Makes a run in progress end soon. */
  requestExit(): void {
    if (this.host.state === VCPU_STATE.RUNNING) this.engine.requestExit();
  }

  /** RESET of processor and local APIC at virtual time `at`. */
  reset(at: number): void {
    this.nmiPending = false;
    this.initPending = false;
    this.attention = false;
    this.waiting = 0;
    this.apic.reset();
    this.engine.reset("power-on");
    this.startTsc(at);
    if (!this.options.bootstrap) this.engine.set(ACTIVITY, ACTIVITY_STATE.WAIT_FOR_SIPI);
  }

  /** The TSC counts from virtual time `at` on: RESET sets it to zero, and INIT leaves it alone (SDM Vol. 3A table 10-1). */
  startTsc(at: number): void {
    this.tscOffset = BigInt.asUintN(64, -BigInt(tscAt(at)));
    this.engine.set(TSC_OFFSET, this.tscOffset);
  }

  /** The engine's registers were set from outside. */
  registersSet(): void {
    this.attention = true;
    this.waiting = 0;
    this.followTsc();
  }

  afterRestore(): void {
    this.attention = true;
    this.waiting = 0;
    this.tscOffset = this.engine.get(TSC_OFFSET) as bigint;
  }

  /** CS:RIP and what else says where it is, in a few words. */
  position(): string {
    const { engine } = this;
    const cs = SEGMENTS[SREG.CS].selector;
    const rip = (engine.get(RIP) as bigint).toString(16);
    return `${(engine.get(cs) as number).toString(16)}:${rip} cpl ${engine.get(CPL)} if ${((engine.get(RFLAGS) as number) >> 9) & 1}`;
  }

  /** An armed deadline moves with the TSC (SDM Vol. 3A 11.5.4.1). */
  private followTsc(): void {
    const offset = this.engine.get(TSC_OFFSET) as bigint;
    if (offset === this.tscOffset) return;
    this.tscOffset = offset;
    this.apic.tscChanged();
  }

  private notice(): void {
    this.attention = true;
    this.requestExit();
  }

  private takeEvents(): void {
    this.attention = false;
    if (this.initPending) this.takeInit();
    const { activity } = this;
    // SDM Vol. 3C, Activity State (special features of VM entry): waiting for a SIPI blocks NMIs, it does not discard them as other states do SIPIs.
    // One that comes meanwhile is taken after the SIPI.
    if (activity === ACTIVITY_STATE.SHUTDOWN || activity === ACTIVITY_STATE.WAIT_FOR_SIPI) return;
    let waiting = 0;
    let free = this.engine.get(PENDING_VECTOR) === NO_EXCEPTION;
    if (this.nmiPending) {
      if (free && this.engine.canInject(INJECT.NMI)) {
        this.nmiPending = false;
        this.statistics.nmisInjected++;
        this.inject(INJECT.NMI, NMI_VECTOR);
        free = false;
      } else waiting |= EVENT.NMI;
    }
    if (this.interruptPending()) {
      if (free && this.engine.canInject(INJECT.INTERRUPT)) {
        this.inject(INJECT.INTERRUPT, this.acknowledge());
        if (this.interruptPending()) waiting |= EVENT.INTERRUPT;
      } else waiting |= EVENT.INTERRUPT;
    }
    if (waiting !== this.waiting) {
      this.waiting = waiting;
      this.engine.setPendingEvents(waiting);
    }
  }

  private interruptPending(): boolean {
    return this.apic.extIntPending() || this.apic.pendingVector() >= 0;
  }

  private acknowledge(): number {
    if (this.apic.extIntPending()) {
      this.apic.extIntAccepted();
      this.statistics.picInterruptsInjected++;
      return this.options.acknowledgePic();
    }
    this.statistics.interruptsInjected++;
    return this.apic.acknowledge();
  }

  private inject(kind: number, vector: number): void {
    this.options.trace.interrupts?.(`${this.source} takes ${vector} at ${this.position()}`);
    this.engine.inject(kind, vector);
  }

  /** SDM Vol. 3A 9.4.1: the bootstrap processor starts at the reset vector (src/firmware/reset-code.ts), the others wait for a SIPI. */
  private takeInit(): void {
    this.initPending = false;
    this.statistics.inits++;
    this.apic.init();
    this.engine.reset("init");
    this.waiting = 0;
    if (!this.options.bootstrap) this.engine.set(ACTIVITY, ACTIVITY_STATE.WAIT_FOR_SIPI);
  }

  /** SDM Vol. 3A 9.4.3: starts at VV00:0000, where the vCPU waits for it; otherwise nothing happens. */
  private startup(vector: number): void {
    if (this.initPending) this.takeInit();
    const { engine } = this;
    if (this.activity !== ACTIVITY_STATE.WAIT_FOR_SIPI) return;
    this.statistics.startups++;
    const cs = SEGMENTS[SREG.CS];
    engine.set(cs.selector, vector << 8);
    engine.set(cs.base, vector << 12);
    engine.set(RIP, 0);
    engine.set(ACTIVITY, ACTIVITY_STATE.RUNNING);
    engine.registersChanged();
    this.notice();
  }

  private count(reason: number): void {
    const { statistics } = this;
    if (reason === EXIT.BUDGET) statistics.exitsBudget++;
    else if (reason === EXIT.HLT) statistics.exitsHalt++;
    else if (reason === EXIT.INTERRUPT_WINDOW) statistics.exitsWindow++;
    else statistics.exitsOther++;
  }

  /**
   * The local APIC's registers come before memory at the same place (SDM Vol. 3A 11.4.5). Where they are at first there is no memory, and no engine
   * yet.
   */
  private placeApic(page: number): void {
    const { slots } = this.options;
    const before = slotsWithoutPage(slots, this.apicPage);
    const now = slotsWithoutPage(slots, page);
    this.apicPage = page;
    if (now !== before) this.engine.setSlots(now);
  }

  // ---- The engine's side ----

  private engineHost(): EngineHost {
    const { io, clock, anomalies, posted } = this.options;
    return {
      requested: posted && (() => posted.requested()),
      portIn: (port, bytes) => {
        const value = io.readPort(port, bytes as AccessSize);
        this.accessed();
        return value;
      },
      portOut: (port, bytes, value) => {
        io.writePort(port, bytes as AccessSize, value);
        this.accessed();
      },
      mmioRead: (low, high, bytes) => {
        const gpa = high * TWO_32 + low;
        const offset = gpa - this.apicPage;
        if (offset >= 0 && offset < APIC_PAGE_BYTES && this.apicPage >= 0)
          return this.apic.readMmio(offset, bytes as AccessSize);
        const value = io.readMmio(gpa, bytes as AccessSize);
        this.accessed();
        return value;
      },
      mmioWrite: (low, high, bytes, value) => {
        const gpa = high * TWO_32 + low;
        const offset = gpa - this.apicPage;
        if (offset >= 0 && offset < APIC_PAGE_BYTES && this.apicPage >= 0)
          this.apic.writeMmio(offset, bytes as AccessSize, value);
        else io.writeMmio(gpa, bytes as AccessSize, value);
        this.accessed();
      },
      readMsr: (msr) => this.readMsr(msr),
      writeMsr: (msr, low, high) => this.writeMsr(msr, low, high),
      tscNow: () => tscAt(clock.now()),
      readCr8: () => this.apic.readCr8(),
      writeCr8: (value) => {
        this.apic.writeCr8(value & 0xf);
      },
      random32: () => this.options.random32(),
      protectPage: (page) => this.options.code.protectPage(page, this.engine),
      codeWritten: (at, length) => this.options.code.codeWritten(at, length, this.engine),
      anomaly: (what, argument) => {
        const name = ANOMALY_NAMES[what] ?? `anomaly ${what}`;
        anomalies.anomaly(this.source, `${name} 0x${(argument >>> 0).toString(16)}`);
      },
    };
  }

  /** After an access that may have set a timer: a deadline within the present run ends it, so that it is not late. */
  private accessed(): void {
    if (this.options.timers.next() < this.sliceEnd) this.requestExit();
  }

  private readMsr(msr: number): readonly [number, number] | undefined {
    this.statistics.msrReads++;
    const value = this.msrValue(msr);
    this.options.trace.msr?.(`read ${msr.toString(16)} -> ${value === undefined ? "#GP" : value.toString(16)}`);
    if (value === undefined) return undefined;
    return [Number(value & 0xffffffffn), Number(value >> 32n)];
  }

  private msrValue(msr: number): bigint | undefined {
    const { features } = this.options;
    if (msr >= MSR.X2APIC_FIRST && msr <= MSR.X2APIC_LAST) return this.apic.readX2apic(msr - MSR.X2APIC_FIRST);
    if (msr === MSR.APIC_BASE && features.has("apic")) return this.apic.readBase();
    if (msr === MSR.TSC_DEADLINE && features.has("tsc_deadline_timer")) return this.apic.readTscDeadline();
    return this.ignores("read", msr) ? 0n : undefined;
  }

  private ignores(access: string, msr: number): boolean {
    const { ignoreUnknownMsrs, anomalies } = this.options;
    if (ignoreUnknownMsrs) anomalies.anomaly(this.source, `${access} of unknown MSR ignored 0x${msr.toString(16)}`);
    return ignoreUnknownMsrs;
  }

  private writeMsr(msr: number, low: number, high: number): boolean {
    this.statistics.msrWrites++;
    const done = this.setMsr(msr, low, high);
    this.options.trace.msr?.(
      `write ${msr.toString(16)} <- ${high.toString(16)}:${low.toString(16)}${done ? "" : " #GP"}`,
    );
    this.accessed();
    return done;
  }

  private setMsr(msr: number, low: number, high: number): boolean {
    const { features } = this.options;
    if (msr >= MSR.X2APIC_FIRST && msr <= MSR.X2APIC_LAST)
      return this.apic.writeX2apicHalves(msr - MSR.X2APIC_FIRST, low, high);
    const value = (BigInt(high) << 32n) | BigInt(low);
    if (msr === MSR.TSC_DEADLINE && features.has("tsc_deadline_timer")) {
      this.apic.writeTscDeadline(value);
      return true;
    }
    if (msr === MSR.APIC_BASE && features.has("apic")) return this.apic.writeBase(value);
    return this.ignores("write", msr);
  }
}
