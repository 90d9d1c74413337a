// One counter of an 8254 programmable interval timer, as a function of its clock's pulse number.
// Intel 8254 data sheet (order 231164): "Operational Description", "Mode Definitions", by mode.
//
// A count that is written is loaded on the next pulse, or in modes 2 and 3 at the end of the period that is running. So a
// counter has at most one load ahead of it, and `settle` performs it; everything between two loads is arithmetic.

import type { AnomalyLog } from "../bus.ts";
import type { Schema, Stateful } from "../state.ts";
import type { Rate } from "./rate.ts";

const RW = { LATCH: 0, LSB: 1, MSB: 2, BOTH: 3 } as const;

const STATUS = { OUT: 0x80, NULL_COUNT: 0x40, CONTROL: 0x3f } as const;

export const i8254CounterSchema: Schema = {
  kind: "i8254-counter",
  version: 1,
  fields: {
    control: "u8",
    gate: "bool",
    register: "u16",
    written: "bool",
    writeHigh: "bool",
    firstByte: "u8",
    readHigh: "bool",
    latch: "u16",
    latchBytes: "u8",
    status: "u8",
    statusLatched: "bool",
    nullCount: "bool",
    loadAt: "time",
    counting: "bool",
    start: "time",
    count: "u32",
    startsLow: "bool",
    done: "bool",
    element: "u32",
  },
  derived: ["name", "rate", "anomalies"],
};

export class I8254Counter implements Stateful {
  readonly schema = i8254CounterSchema;
  private readonly name: string;
  private readonly rate: Rate;
  private readonly anomalies: AnomalyLog;

  /** Bits 5..0 of the control word as written. */
  private control = 0;
  private gate = true;
  /** The count register CR, as written (binary or BCD). */
  private register = 0;
  /** A count has been written since the control word. */
  private written = false;
  /** The next byte written is the high one of two. */
  private writeHigh = false;
  private firstByte = 0;
  /** The next byte read is the high one of two. */
  private readHigh = false;
  private latch = 0;
  /** Bytes of the latched count that are still to be read; 0: the latch follows the counting element. */
  private latchBytes = 0;
  private status = 0;
  private statusLatched = false;
  /** What was written last has not reached the counting element. */
  private nullCount = true;
  /** When CR is loaded into the counting element, in virtual nanoseconds of a pulse. */
  private loadAt = Number.POSITIVE_INFINITY;
  private counting = false;
  /** The pulse at which the counting element held `count`. */
  private start = 0;
  /** The count in force, 1 to 65536; 0 only where a counter was stopped at its end. */
  private count = 0x10000;
  /** Mode 3: the waveform begins at `start` with the low half. */
  private startsLow = false;
  /** Modes 0 and 4: the end of the count was reached before the gate stopped the counter. */
  private done = false;
  /** The counting element while it stands still. */
  private element = 0;

  constructor(name: string, rate: Rate, anomalies: AnomalyLog) {
    this.name = name;
    this.rate = rate;
    this.anomalies = anomalies;
  }

  /** The mode in force: 6 and 7 are 2 and 3 ("Control Word Format": a don't-care bit). */
  get mode(): number {
    const mode = (this.control >> 1) & 7;
    return mode >= 6 ? mode - 4 : mode;
  }

  /** Undefined by the data sheet; here a counter at rest in mode 0. */
  reset(gate: boolean): void {
    this.control = 0;
    this.gate = gate;
    this.register = 0;
    this.stop(0);
    this.clearAccess();
  }

  writeControl(now: number, value: number): void {
    this.settle(now);
    if (((value >> 4) & 3) === RW.LATCH) {
      this.latchCount(now);
      return;
    }
    const element = this.elementAt(now);
    this.control = value & STATUS.CONTROL;
    this.stop(element);
    this.clearAccess();
  }

  /** The read-back command's share for this counter. */
  readBack(now: number, count: boolean, status: boolean): void {
    this.settle(now);
    if (count) this.latchCount(now);
    if (status && !this.statusLatched) {
      this.status = (this.out(now) ? STATUS.OUT : 0) | (this.nullCount ? STATUS.NULL_COUNT : 0) | this.control;
      this.statusLatched = true;
    }
  }

  read(now: number): number {
    this.settle(now);
    if (this.statusLatched) {
      this.statusLatched = false;
      return this.status;
    }
    const value = this.latchBytes > 0 ? this.latch : this.shown(now);
    if (this.latchBytes > 0) this.latchBytes--;
    const access = (this.control >> 4) & 3;
    const high = access === RW.BOTH ? this.readHigh : access === RW.MSB;
    if (access === RW.BOTH) this.readHigh = !this.readHigh;
    return high ? value >> 8 : value & 0xff;
  }

  write(now: number, value: number): void {
    this.settle(now);
    const access = (this.control >> 4) & 3;
    if (access === RW.BOTH && !this.writeHigh) {
      this.firstByte = value;
      this.writeHigh = true;
      // Mode 0: the first byte stops the counting and sets OUT low at once.
      if (this.mode === 0) this.stop(this.elementAt(now));
      return;
    }
    this.writeHigh = false;
    if (access === RW.BOTH) this.register = (value << 8) | this.firstByte;
    else this.register = access === RW.MSB ? value << 8 : value;
    this.written = true;
    this.nullCount = true;
    if ((this.mode === 2 || this.mode === 3) && this.decoded() === 1) {
      this.anomalies.anomaly(this.name, "a count of 1 in mode 2 or 3");
    }
    this.loadAt = this.loadAfterWrite(now);
  }

  setGate(now: number, gate: boolean): void {
    this.settle(now);
    if (gate === this.gate) return;
    if (!gate) this.gateFalls(now);
    this.gate = gate;
    if (gate) this.gateRises(now);
  }

  /** Loads the count whose pulse has come. */
  settle(now: number): void {
    if (this.loadAt > now) return;
    const at = this.loadAt;
    // A square wave that goes on at a half takes the new count for the other half; every other load starts afresh.
    this.startsLow =
      this.mode === 3 && this.counting && !this.levelAt(this.rate.ticksAt(at) - this.rate.ticksAt(this.start));
    this.loadAt = Number.POSITIVE_INFINITY;
    this.nullCount = false;
    this.done = false;
    this.count = this.decoded();
    this.start = at;
    const stopped = !this.gate && this.mode !== 1 && this.mode !== 5;
    this.counting = !stopped;
    if (stopped) this.element = this.mode === 3 ? this.count & ~1 : this.count;
  }

  /** The level of OUT. */
  out(now: number): boolean {
    this.settle(now);
    if (!this.counting) return this.mode === 0 ? this.done : true;
    return this.levelAt(this.elapsed(now));
  }

  /** When a count will be loaded, in virtual nanoseconds; Infinity: none is waiting for its pulse. */
  get loadDue(): number {
    return this.loadAt;
  }

  /** The first time after `now` at which OUT rises by itself, as far as no load comes before; Infinity: never. */
  nextRise(now: number): number {
    this.settle(now);
    if (!this.counting) return Number.POSITIVE_INFINITY;
    const passed = this.elapsed(now);
    let rise: number;
    switch (this.mode) {
      case 0:
      case 1:
        rise = this.done ? 0 : this.count;
        break;
      case 2:
      case 3:
        // A count of 1 makes no edge at all.
        if (this.count < 2) return Number.POSITIVE_INFINITY;
        rise = this.startsLow ? this.count >> 1 : this.count;
        if (rise <= passed) rise += this.count * (Math.floor((passed - rise) / this.count) + 1);
        break;
      default:
        rise = this.done ? 0 : this.count + 1;
    }
    return rise > passed ? this.rate.timeOf(this.rate.ticksAt(this.start) + rise) : Number.POSITIVE_INFINITY;
  }

  /** How often OUT rises by itself after `after` and not after `until`, where no load comes between them. */
  rises(after: number, until: number): number {
    const first = this.nextRise(after);
    if (first > until) return 0;
    if (this.mode !== 2 && this.mode !== 3) return 1;
    return 1 + Math.floor((this.rate.ticksAt(until) - this.rate.ticksAt(first)) / this.count);
  }

  private elapsed(now: number): number {
    return this.rate.ticksAt(now) - this.rate.ticksAt(this.start);
  }

  /** OUT, `passed` pulses after the load. */
  private levelAt(passed: number): boolean {
    switch (this.mode) {
      case 0:
        return this.done || passed >= this.count;
      case 1:
        return passed >= this.count;
      case 2:
        return passed % this.count !== this.count - 1;
      case 3: {
        const at = passed % this.count;
        return this.startsLow ? at >= this.count >> 1 : at < (this.count + 1) >> 1;
      }
      default:
        return this.done || passed !== this.count;
    }
  }

  /** The counting element in binary. */
  private elementAt(now: number): number {
    if (!this.counting) return this.element;
    const passed = this.elapsed(now);
    switch (this.mode) {
      case 2:
        return this.count - (passed % this.count);
      case 3: {
        // By two; an odd count is loaded less one, and its high half is one pulse longer.
        const low = this.count >> 1;
        const high = this.count - low;
        const first = this.startsLow ? low : high;
        const at = passed % this.count;
        return (this.count & ~1) - 2 * (at < first ? at : at - first);
      }
      default: {
        // After its end the count goes on from the highest value.
        const span = this.span();
        return this.count - passed >= 0 ? this.count - passed : (span - ((passed - this.count) % span)) % span;
      }
    }
  }

  private span(): number {
    return this.control & 1 ? 10_000 : 0x10000;
  }

  /** CR as a number of pulses. Digits beyond 9, which the data sheet does not define, count for what they are. */
  private decoded(): number {
    if ((this.control & 1) === 0) return this.register || 0x10000;
    const digit = (shift: number) => (this.register >> shift) & 0xf;
    return digit(12) * 1000 + digit(8) * 100 + digit(4) * 10 + digit(0) || 10_000;
  }

  /** The counting element as the processor reads it. */
  private shown(now: number): number {
    const element = this.elementAt(now) % this.span();
    if ((this.control & 1) === 0) return element;
    const digit = (unit: number) => Math.floor(element / unit) % 10;
    return (digit(1000) << 12) | (digit(100) << 8) | (digit(10) << 4) | digit(1);
  }

  private latchCount(now: number): void {
    // "Counter Latch Command": a second one before the first has been read is ignored.
    if (this.latchBytes > 0) return;
    this.latch = this.shown(now);
    this.latchBytes = ((this.control >> 4) & 3) === RW.BOTH ? 2 : 1;
  }

  private nextPulse(now: number): number {
    return this.rate.timeOf(this.rate.ticksAt(now) + 1);
  }

  private loadAfterWrite(now: number): number {
    switch (this.mode) {
      case 0:
        this.stop(this.elementAt(now));
        this.written = true;
        return this.nextPulse(now);
      case 1:
      case 5:
        // Waits for a trigger; one that has come already keeps its pulse.
        return this.loadAt;
      case 4:
        return this.nextPulse(now);
      default: {
        if (!this.counting || this.loadAt === this.nextPulse(now)) return this.nextPulse(now);
        const passed = this.elapsed(now);
        const at = passed % this.count;
        const half = this.startsLow ? this.count >> 1 : (this.count + 1) >> 1;
        const left = this.mode === 3 && at < half ? half - at : this.count - at;
        return this.rate.timeOf(this.rate.ticksAt(now) + left);
      }
    }
  }

  private gateFalls(now: number): void {
    const mode = this.mode;
    if (mode === 1 || mode === 5) return;
    const element = this.elementAt(now);
    if (this.counting) {
      const passed = this.elapsed(now);
      if (mode === 0 || mode === 4) this.done = this.done || passed >= this.count;
      // The end of the period, for which a new count may wait, does not come; the next trigger loads it.
      else this.loadAt = Number.POSITIVE_INFINITY;
    }
    this.element = element;
    this.counting = false;
  }

  private gateRises(now: number): void {
    const mode = this.mode;
    if (mode === 0 || mode === 4) {
      // Goes on from where the gate stopped it, unless nothing has been loaded or a load is due that starts it anyway.
      if (!this.written || (this.nullCount && this.loadAt !== Number.POSITIVE_INFINITY)) return;
      this.counting = true;
      this.count = this.element;
      this.start = this.rate.timeOf(this.rate.ticksAt(now));
      return;
    }
    // The trigger of the other modes loads CR on the next pulse.
    if (this.written) this.loadAt = this.nextPulse(now);
  }

  private stop(element: number): void {
    this.counting = false;
    this.element = element;
    this.written = false;
    this.nullCount = true;
    this.loadAt = Number.POSITIVE_INFINITY;
    this.startsLow = false;
    this.done = false;
  }

  private clearAccess(): void {
    this.writeHigh = false;
    this.readHigh = false;
    this.latchBytes = 0;
    this.statusLatched = false;
  }
}
