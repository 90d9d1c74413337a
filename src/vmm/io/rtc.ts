// The PC's real-time clock: an MC146818A with 114 bytes of battery-backed RAM behind ports 70h and 71h.
// MC146818A data sheet (Motorola ADI1028); ICH9 data sheet 13.6 (RTC) and 13.7.2 (NMI_EN, bit 7 of port 70h).
//
// The clock is the moment at which its present second began, plus virtual time; what a guest sets changes that moment. Time
// bytes that a guest has written stand as written ("held") until the next update cycle, which takes them as a date. While the
// SET bit or a stopped divider keeps updates away, they stay so. An update is instantaneous; UIP announces it 244 us before.

import type { AccessSize, AnomalyLog, InterruptPin, PortHandler, RegisterBank } from "../bus.ts";
import type { Clock, Timer, TimerQueue } from "../clock.ts";
import { type Schema, StateError, type Stateful } from "../state.ts";
import { readBytes, writeBytes } from "./byte-ports.ts";
import { Rate } from "./rate.ts";
import type { DataMode, Moment } from "./rtc-calendar.ts";
import { FIELD, FIELDS, fromFields, SECONDS_PER_DAY, secondsToAlarm, toFields } from "./rtc-calendar.ts";

export const RTC_PORTS = { index: 0x70, data: 0x71 } as const;

const REG = { secondsAlarm: 0x01, minutesAlarm: 0x03, hoursAlarm: 0x05, A: 0x0a, B: 0x0b, C: 0x0c, D: 0x0d } as const;

/** CMOS index of each time byte; the century's is the one that the FADT names. */
const TIME_FIELD: { readonly [index: number]: number } = {
  0: FIELD.seconds,
  2: FIELD.minutes,
  4: FIELD.hours,
  6: FIELD.dayOfWeek,
  7: FIELD.date,
  8: FIELD.month,
  9: FIELD.year,
  50: FIELD.century,
};

const A = { UIP: 0x80, DV: 0x70, RS: 0x0f } as const;
const B = { SET: 0x80, PIE: 0x40, AIE: 0x20, UIE: 0x10, SQWE: 0x08, DM: 0x04, HOURS_24: 0x02 } as const;
const C = { IRQF: 0x80, PF: 0x40, AF: 0x20, UF: 0x10 } as const;
const D = { VRT: 0x80 } as const;

/** Divider select of the 32.768 kHz crystal; the values above those of the three time bases hold the chain. */
const DV_32KHZ = 0x20;

/** Rate select 6: 1024 Hz, what firmware leaves. */
const RS_1024HZ = 0x06;

const NMI_DISABLE = 0x80;

/** The register that a write to port 70h selects: its index, and its place in a bank (`keepRegisters`). */
export function registerOfIndex(written: number): number {
  return written & ~NMI_DISABLE;
}

const CRYSTAL = new Rate(32_768);
const NS_PER_SECOND = 1_000_000_000;

/** Crystal cycles from the rise of UIP to the update: 244 us ("Update Cycle", t_BUC). */
const UIP_CYCLES = 8;

const CMOS_SIZE = 128;

/** CMOS bytes that the PC's firmware keeps, as (index of the low byte). The checksum is over 10h to 2Dh, high byte first. */
const CMOS = {
  baseMemory: 0x15,
  extendedMemory: 0x17,
  checksum: 0x2e,
  extendedMemoryPost: 0x30,
  memoryAbove16M: 0x34,
  memoryAbove4G: 0x5b,
} as const;

export interface RtcOptions {
  readonly clock: Clock;
  readonly timers: TimerQueue;
  /** IRQ 8. */
  readonly pin: InterruptPin;
  readonly anomalies: AnomalyLog;
  /** What the clock shows at virtual time 0, in milliseconds since 1970. */
  readonly wallClockAtZero: number;
  /** The guest has changed the NMI mask, bit 7 of port 70h. */
  readonly nmiMaskChanged?: (masked: boolean) => void;
}

const schema: Schema = {
  kind: "mc146818",
  version: 1,
  fields: {
    index: "u8",
    nmiMask: "bool",
    regA: "u8",
    regB: "u8",
    flags: "u8",
    cmos: "bytes",
    day: "i32",
    second: "u32",
    weekShift: "u8",
    secondAt: "time",
    settledAt: "time",
    held: "bool",
    timeBytes: "bytes",
    connected: "bool",
  },
  derived: ["clock", "pin", "anomalies", "nmiMaskChanged", "timer", "bank"],
};

export class Rtc implements Stateful, PortHandler {
  readonly schema = schema;
  private readonly clock: Clock;
  private readonly pin: InterruptPin;
  private readonly anomalies: AnomalyLog;
  private readonly nmiMaskChanged: ((masked: boolean) => void) | undefined;
  private readonly timer: Timer;
  private bank: RegisterBank | undefined;

  private index = 0;
  private nmiMask = false;
  private regA: number = DV_32KHZ | RS_1024HZ;
  private regB: number = B.HOURS_24;
  /** PF, AF and UF of register C. */
  private flags = 0;
  /** Alarm bytes and RAM, by index; the time bytes and registers in it are unused. */
  private cmos = new Uint8Array(CMOS_SIZE);

  /** The date and time that the clock showed from `secondAt` on: days since 1970, second of the day. */
  private day = 0;
  private second = 0;
  /** Days by which the guest's day of the week is ahead of the calendar's. */
  private weekShift = 0;
  /** Virtual time at which the present second of the divider chain began; may lie before 0. */
  private secondAt = 0;
  /** Virtual time up to which the flags have been worked out. */
  private settledAt = 0;
  /** The time is what `timeBytes` say, as nobody has counted since they were written. */
  private held = false;
  private timeBytes = new Uint8Array(FIELDS);
  /** The interrupt reaches IRQ 8; not while the HPET replaces it. */
  private connected = true;

  constructor(options: RtcOptions) {
    this.clock = options.clock;
    this.pin = options.pin;
    this.anomalies = options.anomalies;
    this.nmiMaskChanged = options.nmiMaskChanged;
    this.timer = options.timers.create("rtc", () => this.refresh());
    this.setMoment(options.wallClockAtZero, 0);
    this.refresh();
  }

  /** What RESET# does: interrupts and flags off. Time, calendar and RAM run on (MC146818A, "RESET"). */
  reset(): void {
    this.settle(this.clock.now());
    this.regB &= ~(B.PIE | B.AIE | B.UIE | B.SQWE);
    this.flags = 0;
    this.index = 0;
    this.connected = true;
    this.maskNmi(false);
    this.update();
  }

  /** Bit 7 of port 70h: NMIs do not reach the processors. */
  get nmiMasked(): boolean {
    return this.nmiMask;
  }

  /** Whether interrupts reach the pin: the HPET's legacy replacement takes IRQ 8 away (IA-PC HPET 1.0a, LEG_RT_CNF). */
  setInterruptConnected(connected: boolean): void {
    this.settle(this.clock.now());
    this.connected = connected;
    this.update();
  }

  /** From now on processors read the registers in a bank, by index, until an update cycle comes near. */
  keepRegisters(bank: RegisterBank): void {
    this.bank = bank;
    // Reading register C clears flags; what shares its doubleword is asked for too.
    for (let dword = 0; dword < CMOS_SIZE / 4; dword++) if (dword !== REG.C >> 2) bank.answer(dword);
    this.publish();
  }

  /** Presets a byte of the RAM, as firmware finds it. */
  setCmos(index: number, value: number): void {
    if (index <= REG.D || index >= CMOS_SIZE || index in TIME_FIELD) {
      throw new RangeError(`CMOS byte ${index} is no RAM`);
    }
    this.cmos[index] = value;
    this.publish();
  }

  /** Fills in the memory sizes that firmware reads: RAM below 4 GiB, counted from 0, and RAM from 4 GiB on. */
  setMemorySize(below4G: number, above4G: number): void {
    const store = (index: number, value: number, bytes: number, limit: number) => {
      const stored = Math.min(Math.max(Math.floor(value), 0), limit);
      for (let i = 0; i < bytes; i++) this.cmos[index + i] = Math.floor(stored / 2 ** (8 * i)) & 0xff;
    };
    store(CMOS.baseMemory, Math.min(below4G / 1024, 640), 2, 0xffff);
    store(CMOS.extendedMemory, below4G / 1024 - 1024, 2, 0xffff);
    store(CMOS.extendedMemoryPost, below4G / 1024 - 1024, 2, 0xffff);
    store(CMOS.memoryAbove16M, (below4G - 0x1000000) / 0x10000, 2, 0xffff);
    store(CMOS.memoryAbove4G, above4G / 0x10000, 3, 0xffffff);
    let sum = 0;
    for (let index = 0x10; index < CMOS.checksum; index++) sum += this.cmos[index];
    this.cmos[CMOS.checksum] = sum >> 8;
    this.cmos[CMOS.checksum + 1] = sum & 0xff;
    this.publish();
  }

  readPort(port: number, size: AccessSize): number {
    return readBytes((at) => (at === RTC_PORTS.data ? this.readRegister(this.index) : 0xff), port, size);
  }

  writePort(port: number, size: AccessSize, value: number): void {
    writeBytes(
      (at, byte) => {
        if (at === RTC_PORTS.index) {
          this.index = registerOfIndex(byte);
          this.maskNmi((byte & NMI_DISABLE) !== 0);
        } else if (at === RTC_PORTS.data) this.writeRegister(this.index, byte);
      },
      port,
      size,
      value,
    );
  }

  afterRestore(): void {
    if (this.cmos.length !== CMOS_SIZE || this.timeBytes.length !== FIELDS) {
      throw new StateError("the RTC's state has another number of bytes");
    }
    this.armTimer();
    this.publish();
  }

  private readRegister(index: number): number {
    const now = this.clock.now();
    this.settle(now);
    this.publish();
    if (index in TIME_FIELD) return this.present()[TIME_FIELD[index]];
    switch (index) {
      case REG.A:
        return this.regA | (this.updateIsNear(now) ? A.UIP : 0);
      case REG.B:
        return this.regB;
      case REG.C: {
        const value = this.flags | (this.interruptRequested() ? C.IRQF : 0);
        this.flags = 0;
        this.update();
        return value;
      }
      case REG.D:
        return D.VRT;
      default:
        return this.cmos[index];
    }
  }

  private writeRegister(index: number, value: number): void {
    const now = this.clock.now();
    this.settle(now);
    if (index in TIME_FIELD) {
      this.hold();
      this.timeBytes[TIME_FIELD[index]] = value;
    } else if (index === REG.A) this.writeA(now, value);
    else if (index === REG.B) this.writeB(value);
    else if (index === REG.C || index === REG.D) this.anomalies.anomaly("rtc", "write to a read-only register");
    else this.cmos[index] = value;
    this.update();
  }

  private writeA(now: number, value: number): void {
    const ran = this.dividerRuns();
    this.regA = value & ~A.UIP;
    if (ran && !this.dividerRuns()) this.hold();
    // "DV2, DV1, DV0": the first update cycle begins one half second after the divider's reset is removed.
    if (!ran && this.dividerRuns()) this.secondAt = now - NS_PER_SECOND / 2;
  }

  private writeB(value: number): void {
    const set = (value & B.SET) !== 0;
    if (set && (this.regB & B.SET) === 0) this.hold();
    // "UIE": the SET bit going high clears it.
    this.regB = set ? value & ~B.UIE : value;
  }

  private maskNmi(masked: boolean): void {
    if (masked === this.nmiMask) return;
    this.nmiMask = masked;
    this.nmiMaskChanged?.(masked);
  }

  private get mode(): DataMode {
    return { binary: (this.regB & B.DM) !== 0, hours24: (this.regB & B.HOURS_24) !== 0 };
  }

  private dividerRuns(): boolean {
    return (this.regA & A.DV) <= DV_32KHZ;
  }

  /** Update cycles take place. */
  private updates(): boolean {
    return this.dividerRuns() && (this.regB & B.SET) === 0;
  }

  private updateIsNear(now: number): boolean {
    return this.updates() && CRYSTAL.ticksAt(now - this.secondAt) >= CRYSTAL.hz - UIP_CYCLES;
  }

  /** The time bytes as they stand. */
  private present(): Uint8Array {
    return this.held ? this.timeBytes : toFields(this.day, this.second, this.weekShift, this.mode);
  }

  private hold(): void {
    if (this.held) return;
    this.timeBytes.set(this.present());
    this.held = true;
  }

  private moment(): Moment {
    if (this.held) return fromFields(this.timeBytes, this.mode);
    return { day: this.day, second: this.second, weekShift: this.weekShift };
  }

  private setMoment(unixMs: number, now: number): void {
    const ms = Math.floor(unixMs);
    const seconds = Math.floor(ms / 1000);
    this.day = Math.floor(seconds / SECONDS_PER_DAY);
    this.second = seconds - this.day * SECONDS_PER_DAY;
    this.weekShift = 0;
    this.secondAt = now - (ms - seconds * 1000) * 1_000_000;
    this.held = false;
    if (!this.updates()) this.hold();
  }

  /** Crystal cycles between two periodic interrupts; 0: none (MC146818A, Table 5, for 32.768 kHz). */
  private period(): number {
    const rs = this.regA & A.RS;
    if (rs === 0) return 0;
    return 1 << (rs <= 2 ? rs + 6 : rs - 1);
  }

  /** Works out what happened up to `now`: date and flags, all of them whether enabled or not. */
  private settle(now: number): void {
    if (now <= this.settledAt || !this.dividerRuns()) {
      this.settledAt = now;
      return;
    }
    const period = this.period();
    const periods = (ns: number) => Math.floor(CRYSTAL.ticksAt(ns - this.secondAt) / period);
    if (period !== 0 && periods(now) !== periods(this.settledAt)) this.flags |= C.PF;
    const seconds = Math.floor((now - this.secondAt) / NS_PER_SECOND);
    if (seconds > 0) {
      if (this.updates()) this.advance(seconds);
      this.secondAt += seconds * NS_PER_SECOND;
    }
    this.settledAt = now;
  }

  /** As many update cycles as there were seconds. */
  private advance(seconds: number): void {
    const { day, second, weekShift } = this.moment();
    this.held = false;
    this.weekShift = weekShift;
    this.flags |= C.UF;
    if (seconds >= this.toAlarm(second)) this.flags |= C.AF;
    const total = second + seconds;
    this.day = day + Math.floor(total / SECONDS_PER_DAY);
    this.second = total % SECONDS_PER_DAY;
  }

  private toAlarm(second: number): number {
    const alarm = {
      seconds: this.cmos[REG.secondsAlarm],
      minutes: this.cmos[REG.minutesAlarm],
      hours: this.cmos[REG.hoursAlarm],
    };
    return secondsToAlarm(second, alarm, this.mode);
  }

  private interruptRequested(): boolean {
    return (this.flags & this.regB & (C.PF | C.AF | C.UF)) !== 0;
  }

  private refresh(): void {
    this.settle(this.clock.now());
    this.update();
  }

  private update(): void {
    this.pin.set(this.interruptRequested() && this.connected);
    this.armTimer();
    this.publish();
  }

  /** After each change. */
  private publish(): void {
    const { bank } = this;
    if (bank === undefined) return;
    const bytes = this.cmos.slice();
    const time = this.present();
    for (const [index, field] of Object.entries(TIME_FIELD)) bytes[Number(index)] = time[field];
    bytes[REG.A] = this.regA;
    bytes[REG.B] = this.regB;
    bank.holdUntil(0);
    new Uint32Array(bytes.buffer).forEach((dword, n) => void Atomics.store(bank.dwords, n, dword));
    bank.holdUntil(this.updates() ? this.secondAt + CRYSTAL.timeOf(CRYSTAL.hz - UIP_CYCLES) : Number.POSITIVE_INFINITY);
  }

  /** The next enabled flag. Once one has raised the interrupt, nothing more can happen to the pin until register C is read. */
  private armTimer(): void {
    if (!this.connected || this.interruptRequested() || !this.dividerRuns()) {
      this.timer.cancel();
      return;
    }
    let next = Number.POSITIVE_INFINITY;
    const period = this.period();
    if (this.regB & B.PIE && period !== 0) {
      const passed = Math.floor(CRYSTAL.ticksAt(this.settledAt - this.secondAt) / period);
      next = this.secondAt + CRYSTAL.timeOf((passed + 1) * period);
    }
    if (this.updates()) {
      let seconds = Number.POSITIVE_INFINITY;
      if (this.regB & B.UIE) seconds = 1;
      else if (this.regB & B.AIE) seconds = this.toAlarm(this.moment().second);
      next = Math.min(next, this.secondAt + seconds * NS_PER_SECOND);
    }
    if (next === Number.POSITIVE_INFINITY) this.timer.cancel();
    else this.timer.arm(next);
  }
}
