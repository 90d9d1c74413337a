// High precision event timers: a 64-bit main counter and a block of comparators.
// IA-PC HPET specification 1.0a, by register and bit names of its chapter 2. TRAPS 12.
//
// The counter's period is 10 ns, a whole number of virtual nanoseconds: counter values and deadlines convert without loss,
// over any time (bhyve's 2^24 Hz is exact against binary host time, which we don't have). The specification allows up to
// 100 ns; 10 ns is what QEMU's has, so that guests are used to it, and it makes the low 32 bits last 43 s.
//
// A comparator matches where the counter becomes equal to it. One that is set to a value already passed matches after the
// counter has wrapped (43 s in 32-bit mode, never in 64-bit mode): avoiding that is the guest's duty. One that is set to the
// very value that the counter has matches at once.
//
// 64-bit accesses arrive as two of 32 bits, low half first, and time may or may not move between them. So a read of a low
// half keeps the high half of the same instant for the access that comes next, if that is the read of the high half and
// comes within 100 ms. Both ways of reading then work: one 64-bit load, and the high-low-high loop of 32-bit code. In the
// same way, a write of a comparator's low half that uses up Tn_VAL_SET_CNF extends it to the high half if that comes next.
//
// Matches that the host was late for make one interrupt, but for those of a periodic comparator 0 that stands in for the 8254 on IRQ 0: guests tell
// the time by them, so none is lost (owed-ticks.ts).

import {
  type AccessSize,
  type AnomalyLog,
  BANK_BYTES,
  BANK_DWORDS,
  type InterruptPin,
  type MmioHandler,
  type MsiSink,
  type RegisterBank,
} from "../bus.ts";
import type { Clock, Timer, TimerQueue } from "../clock.ts";
import { type Schema, StateError, type Stateful } from "../state.ts";
import { OwedTicks, owedTicksSchema } from "./owed-ticks.ts";

export const HPET_LENGTH = 0x400;
/** Banks that the registers which hold still are in (`keepRegisters`), by offset: the general ones, and those of the first 8 comparators. */
export const HPET_BANKS = 2;

/** Nanoseconds a count of the main counter. */
export const HPET_PERIOD_NS = 10;

const FEMTOSECONDS_PER_NS = 1_000_000;

const REG = { GCAP_ID: 0x000, GEN_CONF: 0x010, GINTR_STA: 0x020, MAIN_COUNTER: 0x0f0, TIMERS: 0x100 } as const;

/** Offsets in a comparator's 32 bytes. */
const TIMER_REG = { CONFIG: 0x00, COMPARATOR: 0x08, FSB_ROUTE: 0x10 } as const;

const GCAP = { REV_ID: 0x01, COUNT_SIZE_CAP: 0x2000, LEG_RT_CAP: 0x8000, VENDOR_INTEL: 0x80860000 } as const;

const CAPABILITIES = GCAP.REV_ID | GCAP.COUNT_SIZE_CAP | GCAP.LEG_RT_CAP | GCAP.VENDOR_INTEL;

const GEN_CONF = { ENABLE_CNF: 0x1, LEG_RT_CNF: 0x2 } as const;

/** Tn_ bits of a comparator's configuration. */
const TN = {
  INT_TYPE_CNF: 0x0002,
  INT_ENB_CNF: 0x0004,
  TYPE_CNF: 0x0008,
  PER_INT_CAP: 0x0010,
  SIZE_CAP: 0x0020,
  VAL_SET_CNF: 0x0040,
  MODE32_CNF: 0x0100,
  INT_ROUTE_CNF: 0x3e00,
  FSB_EN_CNF: 0x4000,
  FSB_INT_DEL_CAP: 0x8000,
} as const;

const INT_ROUTE_SHIFT = 9;

const WRITABLE = TN.INT_TYPE_CNF | TN.INT_ENB_CNF | TN.TYPE_CNF | TN.MODE32_CNF | TN.INT_ROUTE_CNF;

/** Numbers of the legacy replacement outputs among `driven`: I/O APIC inputs come first. */
const LEGACY_OUTPUT = 32;

const NO_OUTPUT = -1;

const MASK32 = 0xffffffffn;
const MASK64 = 0xffffffffffffffffn;

/** Beyond this a deadline is no exact number, and no machine will see it. */
const LAST_TICK = BigInt(Math.floor(Number.MAX_SAFE_INTEGER / HPET_PERIOD_NS));

const PAIR_NS = 100_000_000;

export interface HpetOptions {
  readonly clock: Clock;
  readonly timers: TimerQueue;
  /** I/O APIC inputs by number, for those that comparators may be routed to; the rest are absent. */
  readonly pins: readonly (InterruptPin | undefined)[];
  /** What IRQ 0 and IRQ 8 are in legacy replacement: each on the 8259 and on its I/O APIC input (2 and 8). */
  readonly legacyPins: readonly [InterruptPin, InterruptPin];
  /** Delivers what the specification calls FSB interrupts; without it the comparators don't offer them. */
  readonly msi?: MsiSink;
  readonly anomalies: AnomalyLog;
  /** Comparators, 3 to 32; each can be periodic and has 64 bits. */
  readonly comparators?: number;
  /** Legacy replacement has begun or ended: the 8254 and the RTC lose or get back IRQ 0 and IRQ 8. */
  readonly legacyReplacement?: (active: boolean) => void;
}

interface Comparator {
  config: number;
  comparator: bigint;
  /** The last value written, which the comparator grows by in periodic mode. */
  period: bigint;
  fsbValue: number;
  fsbAddress: number;
  /** When the counter next equals the comparator, in virtual nanoseconds. */
  deadline: number;
  /** The output held high: an I/O APIC input, LEGACY_OUTPUT + n, or NO_OUTPUT. */
  driven: number;
}

const schema: Schema = {
  kind: "hpet",
  version: 2,
  fields: {
    genConf: "u32",
    isr: "u32",
    counter: "u64",
    since: "time",
    comparators: {
      array: {
        struct: {
          config: "u32",
          comparator: "u64",
          period: "u64",
          fsbValue: "u32",
          fsbAddress: "u32",
          deadline: "time",
          driven: "i32",
        },
      },
    },
    pairOffset: "i32",
    pairWrite: "bool",
    pairHigh: "u32",
    pairAt: "time",
    ticks: { section: owedTicksSchema },
  },
  derived: [
    "clock",
    "pins",
    "legacyPins",
    "msi",
    "anomalies",
    "legacyReplacement",
    "timers",
    "routeCap",
    "banks",
    "kept",
  ],
};

export class Hpet implements Stateful, MmioHandler {
  readonly schema = schema;
  private readonly clock: Clock;
  private readonly pins: readonly (InterruptPin | undefined)[];
  private readonly legacyPins: readonly [InterruptPin, InterruptPin];
  private readonly msi: MsiSink | undefined;
  private readonly anomalies: AnomalyLog;
  private readonly legacyReplacement: ((active: boolean) => void) | undefined;
  private readonly routeCap: number;
  private readonly timers: readonly Timer[];

  private banks: readonly RegisterBank[] = [];
  /** Offsets of the registers in them. */
  private kept: readonly number[] = [];
  private genConf = 0;
  private isr = 0;
  /** The main counter at `since`; where it is enabled it has counted from there. */
  private counter = 0n;
  private since = 0;
  private comparators: Comparator[] = [];
  /** The offset at which the next access is the second half of a 64-bit one, or -1; which kind; what a read gives; since when. */
  private pairOffset = -1;
  private pairWrite = false;
  private pairHigh = 0;
  private pairAt = 0;
  /** The edges of comparator 0 on IRQ 0. */
  readonly ticks = new OwedTicks(() => this.edge(0, this.comparators[0]));

  constructor(options: HpetOptions) {
    const count = options.comparators ?? 3;
    if (!Number.isInteger(count) || count < 3 || count > 32) throw new RangeError(`an HPET of ${count} comparators`);
    this.clock = options.clock;
    this.pins = options.pins;
    this.legacyPins = options.legacyPins;
    this.msi = options.msi;
    this.anomalies = options.anomalies;
    this.legacyReplacement = options.legacyReplacement;
    let routeCap = 0;
    options.pins.forEach((pin, input) => {
      if (pin !== undefined && input < 32) routeCap |= 1 << input;
    });
    this.routeCap = routeCap >>> 0;
    this.timers = Array.from({ length: count }, (_, n) =>
      options.timers.create(`hpet comparator ${n}`, () => this.expire(this.clock.now())),
    );
    this.reset();
  }

  reset(): void {
    const legacy = this.legacyActive;
    this.comparators.forEach((timer, n) => {
      this.release(timer);
      this.timers[n].cancel();
    });
    this.genConf = 0;
    this.isr = 0;
    this.counter = 0n;
    this.since = this.clock.now();
    this.pairOffset = -1;
    this.ticks.forget();
    this.comparators = this.timers.map(() => ({
      config: 0,
      comparator: MASK64,
      period: MASK64,
      fsbValue: 0,
      fsbAddress: 0,
      deadline: Number.POSITIVE_INFINITY,
      driven: NO_OUTPUT,
    }));
    if (legacy) this.legacyReplacement?.(false);
    this.publish();
  }

  /** From now on processors read what only writes change in `HPET_BANKS` banks. It is as if such a read did not come between two halves. */
  keepRegisters(banks: readonly RegisterBank[]): void {
    this.banks = banks;
    const offsets = Array.from({ length: banks.length * BANK_DWORDS }, (_, dword) => 4 * dword);
    this.kept = offsets.filter((offset) => this.stillRegister(offset) !== undefined);
    for (const offset of this.kept) banks[Math.floor(offset / BANK_BYTES)].answer((offset % BANK_BYTES) >> 2);
    this.publish();
  }

  /** After each write. */
  private publish(): void {
    for (const offset of this.kept)
      this.banks[Math.floor(offset / BANK_BYTES)].dwords[(offset % BANK_BYTES) >> 2] = this.stillRegister(offset) ?? 0;
  }

  readMmio(offset: number, size: AccessSize): number {
    const now = this.clock.now();
    this.expire(now);
    const shift = (offset & 3) * 8;
    if (shift + size * 8 > 32) {
      this.anomalies.anomaly("hpet", "access across a register's half");
      return 0;
    }
    const value = this.readRegister(now, offset & ~3) >>> shift;
    return size === 4 ? value : value & (size === 2 ? 0xffff : 0xff);
  }

  writeMmio(offset: number, size: AccessSize, value: number): void {
    const now = this.clock.now();
    this.expire(now);
    if (size !== 4 || offset & 3) {
      // Chapter 2: registers are to be accessed by 32 or 64 bits, aligned.
      this.anomalies.anomaly("hpet", "write of less than half a register");
      return;
    }
    this.writeRegister(now, offset, value);
    this.publish();
  }

  private writeRegister(now: number, offset: number, value: number): void {
    const paired = this.takePair(now, offset, true);
    switch (offset) {
      case REG.GEN_CONF:
        this.writeGenConf(now, value);
        return;
      case REG.GINTR_STA:
        this.isr &= ~value;
        this.isr >>>= 0;
        this.updateLines();
        return;
      case REG.MAIN_COUNTER:
      case REG.MAIN_COUNTER + 4:
        if (this.enabled) this.anomalies.anomaly("hpet", "main counter written while it runs");
        this.counter = withHalf(this.counterAt(now), offset, value);
        this.since = now;
        this.ticks.forget();
        this.scheduleAll(now);
        return;
      default:
        if (offset >= REG.TIMERS) this.writeTimer(now, offset, value, paired);
    }
  }

  afterRestore(): void {
    if (this.comparators.length !== this.timers.length) {
      throw new StateError(
        `the HPET has ${this.timers.length} comparators, but the state has ${this.comparators.length}`,
      );
    }
    this.comparators.forEach((_, n) => {
      this.armTimer(n);
    });
    this.publish();
  }

  private get enabled(): boolean {
    return (this.genConf & GEN_CONF.ENABLE_CNF) !== 0;
  }

  /** Both bits are needed (2.3.5, LEG_RT_CNF). */
  private get legacyActive(): boolean {
    return this.genConf === (GEN_CONF.ENABLE_CNF | GEN_CONF.LEG_RT_CNF);
  }

  private counterAt(now: number): bigint {
    if (!this.enabled) return this.counter;
    return (this.counter + BigInt(tickOf(now) - tickOf(this.since))) & MASK64;
  }

  private readRegister(now: number, offset: number): number {
    const pairHigh = this.pairHigh;
    if (this.takePair(now, offset, false)) return pairHigh;
    const still = this.stillRegister(offset);
    if (still !== undefined) return still;
    switch (offset) {
      case REG.GINTR_STA:
        return this.isr;
      case REG.MAIN_COUNTER:
      case REG.MAIN_COUNTER + 4:
        return this.readHalf(now, offset, this.counterAt(now));
      default:
        return offset >= REG.TIMERS ? this.readTimer(now, offset) : 0;
    }
  }

  /** What only writes change. */
  private stillRegister(offset: number): number | undefined {
    const { GCAP_ID, GEN_CONF, TIMERS } = REG;
    if (offset === GCAP_ID) return (CAPABILITIES | ((this.timers.length - 1) << 8)) >>> 0;
    if (offset === GCAP_ID + 4) return HPET_PERIOD_NS * FEMTOSECONDS_PER_NS;
    if (offset === GEN_CONF) return this.genConf;
    const timer = offset < TIMERS ? undefined : this.comparators[(offset - TIMERS) >> 5];
    if (timer === undefined) return undefined;
    switch (offset & 0x1f) {
      case TIMER_REG.CONFIG:
        return timer.config | TN.PER_INT_CAP | TN.SIZE_CAP | (this.msi === undefined ? 0 : TN.FSB_INT_DEL_CAP);
      case TIMER_REG.CONFIG + 4:
        return this.routeCap;
      default:
        return undefined;
    }
  }

  private readTimer(now: number, offset: number): number {
    const timer = this.comparators[(offset - REG.TIMERS) >> 5];
    if (timer === undefined) return 0;
    switch (offset & 0x1f) {
      case TIMER_REG.COMPARATOR:
      case TIMER_REG.COMPARATOR + 4:
        return this.readHalf(now, offset, timer.comparator);
      case TIMER_REG.FSB_ROUTE:
        return timer.fsbValue;
      case TIMER_REG.FSB_ROUTE + 4:
        return timer.fsbAddress;
      default:
        return 0;
    }
  }

  /** One half of a register that changes by itself; the low one announces the high one. */
  private readHalf(now: number, offset: number, value: bigint): number {
    const high = Number(value >> 32n);
    if (offset & 4) return high;
    this.pairOffset = offset + 4;
    this.pairWrite = false;
    this.pairHigh = high;
    this.pairAt = now;
    return Number(value & MASK32);
  }

  /** Whether this access is the second half of a pair. Whatever comes between two halves ends the pair. */
  private takePair(now: number, offset: number, write: boolean): boolean {
    const paired = this.pairOffset === offset && this.pairWrite === write && now - this.pairAt <= PAIR_NS;
    this.pairOffset = -1;
    return paired;
  }

  private writeGenConf(now: number, value: number): void {
    const legacy = this.legacyActive;
    const counter = this.counterAt(now);
    const ran = this.enabled;
    const before = this.genConf;
    this.genConf = value & (GEN_CONF.ENABLE_CNF | GEN_CONF.LEG_RT_CNF);
    if (this.genConf !== before) this.ticks.forget();
    if (ran !== this.enabled) {
      this.counter = counter;
      this.since = now;
      this.scheduleAll(now);
    }
    // Nobody else's interrupt may be on the legacy lines while they change hands.
    if (legacy) this.updateLines();
    if (legacy !== this.legacyActive) this.legacyReplacement?.(!legacy);
    this.updateLines();
  }

  private writeTimer(now: number, offset: number, value: number, paired: boolean): void {
    const n = (offset - REG.TIMERS) >> 5;
    const timer = this.comparators[n];
    if (timer === undefined) return;
    if (n === 0) this.ticks.forget();
    switch (offset & 0x1f) {
      case TIMER_REG.CONFIG:
        this.writeConfig(now, n, timer, value);
        break;
      case TIMER_REG.COMPARATOR:
      case TIMER_REG.COMPARATOR + 4:
        this.writeComparator(now, n, timer, offset, value, paired);
        break;
      case TIMER_REG.FSB_ROUTE:
        timer.fsbValue = value;
        break;
      case TIMER_REG.FSB_ROUTE + 4:
        timer.fsbAddress = value;
        break;
      default:
        break;
    }
  }

  private writeConfig(now: number, n: number, timer: Comparator, value: number): void {
    const old = timer.config;
    let config = value & (this.msi === undefined ? WRITABLE : WRITABLE | TN.FSB_EN_CNF);
    // A route that the comparator does not have is not taken; software finds out by reading it back (2.3.8, Tn_INT_ROUTE_CNF).
    const route = (config & TN.INT_ROUTE_CNF) >> INT_ROUTE_SHIFT;
    if (((this.routeCap >>> route) & 1) === 0) config = (config & ~TN.INT_ROUTE_CNF) | (old & TN.INT_ROUTE_CNF);
    if (config & TN.TYPE_CNF) config |= value & TN.VAL_SET_CNF;
    timer.config = config;
    if (config & TN.MODE32_CNF) {
      timer.comparator &= MASK32;
      timer.period &= MASK32;
    }
    if ((old ^ config) & (TN.TYPE_CNF | TN.MODE32_CNF)) this.schedule(now, n);
    else this.armTimer(n);
    this.updateLine(n);
  }

  private writeComparator(
    now: number,
    n: number,
    timer: Comparator,
    offset: number,
    value: number,
    paired: boolean,
  ): void {
    const mask = timer.config & TN.MODE32_CNF ? MASK32 : MASK64;
    timer.period = withHalf(timer.period, offset, value) & mask;
    const periodic = (timer.config & TN.TYPE_CNF) !== 0;
    const valSet = (timer.config & TN.VAL_SET_CNF) !== 0;
    timer.config &= ~TN.VAL_SET_CNF;
    // In periodic mode a write changes the rate alone, unless Tn_VAL_SET_CNF opens the accumulator for it too (2.3.8, 2.3.9).
    if (periodic && !valSet && !paired) return;
    if (periodic && valSet && (offset & 4) === 0) {
      this.pairOffset = offset + 4;
      this.pairWrite = true;
      this.pairAt = now;
    }
    timer.comparator = withHalf(timer.comparator, offset, value) & mask;
    this.schedule(now, n);
  }

  private scheduleAll(now: number): void {
    this.comparators.forEach((_, n) => {
      this.schedule(now, n);
    });
  }

  /** Finds the next match from the counter's present value. */
  private schedule(now: number, n: number): void {
    const timer = this.comparators[n];
    timer.deadline = Number.POSITIVE_INFINITY;
    if (this.enabled) {
      const mask = timer.config & TN.MODE32_CNF ? MASK32 : MASK64;
      const left = (timer.comparator - this.counterAt(now)) & mask;
      timer.deadline = timeOf(BigInt(tickOf(now)) + left);
    }
    this.armTimer(n);
  }

  /** A host timer runs only for a match that interrupts; other matches are worked out at the next access. */
  private armTimer(n: number): void {
    const { deadline, config } = this.comparators[n];
    if (deadline === Number.POSITIVE_INFINITY || (config & TN.INT_ENB_CNF) === 0) this.timers[n].cancel();
    else this.timers[n].arm(deadline);
  }

  private expire(now: number): void {
    this.comparators.forEach((timer, n) => {
      if (timer.deadline <= now) this.match(now, n, timer);
    });
  }

  /** The matches up to `now`, which is one or, when late, several at once. */
  private match(now: number, n: number, timer: Comparator): void {
    const wide = (timer.config & TN.MODE32_CNF) === 0;
    const wrap = wide ? MASK64 + 1n : MASK32 + 1n;
    const periodic = (timer.config & TN.TYPE_CNF) !== 0;
    const step = periodic && timer.period !== 0n ? timer.period : wrap;
    const first = BigInt(tickOf(timer.deadline));
    const steps = (BigInt(tickOf(now)) - first) / step + 1n;
    if (periodic) timer.comparator = (timer.comparator + steps * step) & (wrap - 1n);
    timer.deadline = timeOf(first + steps * step);
    this.armTimer(n);
    this.interrupt(n, timer, periodic ? steps : 1n);
  }

  private interrupt(n: number, timer: Comparator, matches: bigint): void {
    const level = (timer.config & TN.INT_TYPE_CNF) !== 0;
    // The status bit stands only for level-triggered comparators, and does so even where the interrupt is off (2.3.6, 2.3.8).
    if (level) this.isr = (this.isr | (1 << n)) >>> 0;
    if ((timer.config & TN.INT_ENB_CNF) === 0) return;
    if (timer.config & TN.FSB_EN_CNF) this.msi?.sendMsi(BigInt(timer.fsbAddress), timer.fsbValue);
    else if (level) this.updateLine(n);
    else if (n === 0 && this.legacyActive && (timer.config & TN.TYPE_CNF) !== 0) this.ticks.owe(Number(matches));
    else this.edge(n, timer);
  }

  private edge(n: number, timer: Comparator): void {
    const output = this.outputOf(n, timer);
    this.release(timer);
    this.pinOf(output)?.set(true);
    // The 8259 wants an edge held until it is served; an I/O APIC input may be shared, and takes the edge as such.
    if (output >= LEGACY_OUTPUT) timer.driven = output;
    else this.pinOf(output)?.set(false);
  }

  private outputOf(n: number, timer: Comparator): number {
    if (this.legacyActive && n < 2) return LEGACY_OUTPUT + n;
    return (timer.config & TN.INT_ROUTE_CNF) >> INT_ROUTE_SHIFT;
  }

  private pinOf(output: number): InterruptPin | undefined {
    return output >= LEGACY_OUTPUT ? this.legacyPins[output - LEGACY_OUTPUT] : this.pins[output];
  }

  private updateLines(): void {
    this.comparators.forEach((_, n) => {
      this.updateLine(n);
    });
  }

  /** Brings a comparator's output to the level that its registers ask for. */
  private updateLine(n: number): void {
    const timer = this.comparators[n];
    const output = this.outputOf(n, timer);
    const connected = this.enabled && (timer.config & TN.INT_ENB_CNF) !== 0 && (timer.config & TN.FSB_EN_CNF) === 0;
    const level = (timer.config & TN.INT_TYPE_CNF) !== 0;
    const asks = level ? (this.isr & (1 << n)) !== 0 : output >= LEGACY_OUTPUT && timer.driven === output;
    const wanted = connected && asks ? output : NO_OUTPUT;
    if (timer.driven === wanted) return;
    this.release(timer);
    if (wanted === NO_OUTPUT) return;
    this.pinOf(wanted)?.set(true);
    timer.driven = wanted;
  }

  private release(timer: Comparator): void {
    if (timer.driven === NO_OUTPUT) return;
    this.pinOf(timer.driven)?.set(false);
    timer.driven = NO_OUTPUT;
  }
}

function tickOf(ns: number): number {
  return Math.floor(ns / HPET_PERIOD_NS);
}

function timeOf(tick: bigint): number {
  return tick > LAST_TICK ? Number.POSITIVE_INFINITY : Number(tick) * HPET_PERIOD_NS;
}

/** `value` with the half that `offset` addresses replaced. */
function withHalf(value: bigint, offset: number, half: number): bigint {
  return offset & 4 ? (BigInt(half) << 32n) | (value & MASK32) : (value & (MASK32 << 32n)) | BigInt(half);
}
