// The ACPI power management timer: a free-running counter at 3.579545 MHz, and its carry status.
// ACPI 6.4, 4.8.3.3 (PM_TMR) and 4.8.3.1 (TMR_STS, TMR_EN in the PM1 event registers).
//
// The PM1 event block belongs to the machine's power management device. It reads `carry` as TMR_STS, forwards the guest's
// write of 1 as `clearCarry` and TMR_EN as `setCarryInterrupt`. A host timer runs only while TMR_EN asks for it.

import type { AccessSize, AnomalyLog, PortHandler } from "../bus.ts";
import type { Clock, Timer, TimerQueue } from "../clock.ts";
import type { Schema, Stateful } from "../state.ts";
import { Rate } from "./rate.ts";

/** A quarter of the 14.31818 MHz crystal. */
export const PM_TIMER_HZ = 3_579_545;

export interface PmTimerOptions {
  readonly clock: Clock;
  readonly timers: TimerQueue;
  readonly anomalies: AnomalyLog;
  /** First of the four ports of PM_TMR. */
  readonly port: number;
  /** Width of the counter; 32 goes with TMR_VAL_EXT in the FADT. */
  readonly bits: 24 | 32;
  /** TMR_STS has become set while TMR_EN was. */
  readonly carried?: () => void;
}

const schema: Schema = {
  kind: "acpi-pm-timer",
  version: 1,
  fields: { clearedAt: "time", interrupt: "bool", signalled: "bool" },
  derived: ["clock", "timer", "anomalies", "port", "bits", "carried", "rate"],
};

export class PmTimer implements Stateful, PortHandler {
  readonly schema = schema;
  private readonly clock: Clock;
  private readonly timer: Timer;
  private readonly anomalies: AnomalyLog;
  private readonly port: number;
  private readonly bits: 24 | 32;
  private readonly carried: (() => void) | undefined;
  private readonly rate = new Rate(PM_TIMER_HZ);

  /** When TMR_STS was last cleared: it is set from the next change of the counter's top bit on. */
  private clearedAt = 0;
  /** TMR_EN. */
  private interrupt = false;
  /** `carried` has been called for the present TMR_STS. */
  private signalled = false;

  constructor(options: PmTimerOptions) {
    this.clock = options.clock;
    this.anomalies = options.anomalies;
    this.port = options.port;
    this.bits = options.bits;
    this.carried = options.carried;
    this.timer = options.timers.create("pm timer", () => this.signal());
  }

  reset(): void {
    this.clearedAt = this.clock.now();
    this.interrupt = false;
    this.signalled = false;
    this.timer.cancel();
  }

  /** TMR_STS: the most significant bit of the counter has changed, either way, since this was last cleared. */
  get carry(): boolean {
    return this.topBitChanges(this.clock.now()) !== this.topBitChanges(this.clearedAt);
  }

  clearCarry(): void {
    this.clearedAt = this.clock.now();
    this.signalled = false;
    this.update();
  }

  /** TMR_EN. Setting it while TMR_STS is set signals at once, as the event is a level (ACPI 6.4, 4.8.3.1.2). */
  setCarryInterrupt(enabled: boolean): void {
    if (enabled === this.interrupt) return;
    this.interrupt = enabled;
    this.signalled = false;
    this.update();
  }

  readPort(port: number, size: AccessSize): number {
    // A register of 32 bits; narrower reads, which ACPI does not allow, give the bytes that they address.
    const ticks = this.rate.ticksAt(this.clock.now());
    const counter = this.bits === 24 ? ticks % 0x1000000 : ticks % 0x100000000;
    const shifted = Math.floor(counter / 2 ** (8 * (port - this.port)));
    return shifted % 2 ** (8 * size);
  }

  writePort(): void {
    this.anomalies.anomaly("pm timer", "write to a read-only register");
  }

  afterRestore(): void {
    this.arm();
  }

  private topBitChanges(ns: number): number {
    return Math.floor(this.rate.ticksAt(ns) / 2 ** (this.bits - 1));
  }

  private update(): void {
    if (this.interrupt && this.carry) this.signal();
    else this.arm();
  }

  private signal(): void {
    if (this.signalled) return;
    this.signalled = true;
    this.timer.cancel();
    this.carried?.();
  }

  private arm(): void {
    if (!this.interrupt || this.signalled) this.timer.cancel();
    else this.timer.arm(this.rate.timeOf((this.topBitChanges(this.clearedAt) + 1) * 2 ** (this.bits - 1)));
  }
}
