// The PC's 8254 interval timer and port 61h (NMI status and control: gate of counter 2, speaker, refresh toggle).
// Intel 8254 data sheet (order 231164); ICH9 data sheet 13.3 (timer) and 13.7.1 (NMI_SC). Counting is in i8254-counter.ts.
//
// Counter 0 interrupts where its OUT rises. The pin is driven on these edges alone, not on the falling ones between them: in
// the periodic modes it is high from the first rise on, and each further rise is a fall and a rise at the same instant.
// None is lost to a host that is late (owed-ticks.ts).

import type { AccessSize, AnomalyLog, InterruptPin, PortHandler } from "../bus.ts";
import type { Clock, Timer, TimerQueue } from "../clock.ts";
import type { Schema, Stateful } from "../state.ts";
import { readBytes, writeBytes } from "./byte-ports.ts";
import { I8254Counter, i8254CounterSchema } from "./i8254-counter.ts";
import { OwedTicks, owedTicksSchema } from "./owed-ticks.ts";
import { Rate } from "./rate.ts";

/** The 14.31818 MHz crystal divided by 12. */
export const PIT_HZ = 1_193_182;

export const PIT_PORTS = { counters: 0x40, control: 0x43, nmiStatus: 0x61 } as const;

/** Read-back command: a latch is taken where its bit is 0 (8254, "Read-Back Command"). */
const READ_BACK = { NO_COUNT: 0x20, NO_STATUS: 0x10 } as const;

const NMI_SC = {
  TIM_CNT2_EN: 0x01,
  SPKR_DAT_EN: 0x02,
  PCI_SERR_EN: 0x04,
  IOCHK_NMI_EN: 0x08,
  REF_TOGGLE: 0x10,
  TMR2_OUT_STS: 0x20,
  IOCHK_NMI_STS: 0x40,
  SERR_NMI_STS: 0x80,
} as const;

const NMI_SC_WRITABLE = 0x0f;

/** Pulses between two memory refreshes: what a PC programs counter 1 with, 15 us. */
const REFRESH_PULSES = 18;

export interface PitOptions {
  readonly clock: Clock;
  readonly timers: TimerQueue;
  /** OUT of counter 0: IRQ 0. */
  readonly pin: InterruptPin;
  readonly anomalies: AnomalyLog;
  /** A system error that port 61h lets through. The mask bit of port 70h is for the receiver to apply. */
  readonly nmi?: () => void;
}

const schema: Schema = {
  kind: "pit",
  version: 2,
  fields: {
    counters: { array: { section: i8254CounterSchema }, length: 3 },
    nmiControl: "u8",
    nmiStatus: "u8",
    connected: "bool",
    eventAt: "time",
    riseAt: "time",
    ticks: { section: owedTicksSchema },
  },
  derived: ["clock", "pin", "nmi", "rate", "timer"],
};

export class Pit implements Stateful, PortHandler {
  readonly schema = schema;
  private readonly clock: Clock;
  private readonly pin: InterruptPin;
  private readonly nmi: (() => void) | undefined;
  private readonly timer: Timer;
  private readonly rate = new Rate(PIT_HZ);
  private readonly counters: readonly [I8254Counter, I8254Counter, I8254Counter];

  /** Bits 3..0 of port 61h. */
  private nmiControl = 0;
  /** Bits 7 and 6 of port 61h. */
  private nmiStatus = 0;
  /** Counter 0 reaches IRQ 0; not while the HPET replaces it. */
  private connected = true;
  /** The event of counter 0 that the timer is armed for. */
  private eventAt = Number.POSITIVE_INFINITY;
  /** The event, where it is a rise of OUT and not only a load. */
  private riseAt = Number.POSITIVE_INFINITY;
  /** The edges of counter 0. */
  readonly ticks = new OwedTicks(() => this.pulse());

  constructor(options: PitOptions) {
    this.clock = options.clock;
    this.pin = options.pin;
    this.nmi = options.nmi;
    this.timer = options.timers.create("pit", (deadline) => this.passEvents(deadline));
    const counter = (n: number) => new I8254Counter(`pit counter ${n}`, this.rate, options.anomalies);
    this.counters = [counter(0), counter(1), counter(2)];
    this.reset();
  }

  reset(): void {
    // The gates of counters 0 and 1 are tied high; counter 2's is bit 0 of port 61h.
    this.counters[0].reset(true);
    this.counters[1].reset(true);
    this.counters[2].reset(false);
    this.nmiControl = 0;
    this.nmiStatus = 0;
    this.connected = true;
    this.pin.set(false);
    this.ticks.forget();
    this.schedule(this.clock.now());
  }

  /** Whether counter 0 reaches its pin: the HPET's legacy replacement takes IRQ 0 away (IA-PC HPET 1.0a, LEG_RT_CNF). */
  setInterruptConnected(connected: boolean): void {
    this.connected = connected;
    if (!connected) this.pin.set(false);
    this.ticks.forget();
    this.schedule(this.clock.now());
  }

  /** OUT of counter 2 where bit 1 of port 61h lets it through: what a speaker's cone follows. */
  speakerLevel(): boolean {
    return (this.nmiControl & NMI_SC.SPKR_DAT_EN) !== 0 && this.counters[2].out(this.clock.now());
  }

  /** A system error on the PCI or ISA side: recorded and passed on as an NMI unless port 61h disables it. */
  systemError(source: "SERR#" | "IOCHK#"): void {
    const serr = source === "SERR#";
    if (this.nmiControl & (serr ? NMI_SC.PCI_SERR_EN : NMI_SC.IOCHK_NMI_EN)) return;
    this.nmiStatus |= serr ? NMI_SC.SERR_NMI_STS : NMI_SC.IOCHK_NMI_STS;
    this.nmi?.();
  }

  readPort(port: number, size: AccessSize): number {
    return readBytes((at) => this.readByte(at), port, size);
  }

  writePort(port: number, size: AccessSize, value: number): void {
    writeBytes((at, byte) => this.writeByte(at, byte), port, size, value);
  }

  afterRestore(): void {
    this.armTimer();
  }

  private readByte(port: number): number {
    const now = this.clock.now();
    if (port === PIT_PORTS.nmiStatus) return this.readNmiStatus(now);
    if (port < PIT_PORTS.counters || port >= PIT_PORTS.control) return 0xff;
    return this.counters[port - PIT_PORTS.counters].read(now);
  }

  private writeByte(port: number, value: number): void {
    const now = this.clock.now();
    if (port === PIT_PORTS.nmiStatus) this.writeNmiControl(now, value);
    else if (port === PIT_PORTS.control) this.writeControl(now, value);
    else if (port === PIT_PORTS.counters) {
      this.catchUp(now);
      this.counters[0].write(now, value);
      this.ticks.forget();
      // In mode 0 a new count sets OUT low at once.
      if (this.counters[0].mode === 0) this.drive(this.counters[0].out(now));
      this.schedule(now);
    } else if (port > PIT_PORTS.counters && port < PIT_PORTS.control) {
      this.counters[port - PIT_PORTS.counters].write(now, value);
    }
  }

  private writeControl(now: number, value: number): void {
    const select = value >> 6;
    if (select === 3) {
      for (let n = 0; n < 3; n++) {
        if ((value & (2 << n)) === 0) continue;
        this.counters[n].readBack(now, (value & READ_BACK.NO_COUNT) === 0, (value & READ_BACK.NO_STATUS) === 0);
      }
      return;
    }
    if (select !== 0) {
      this.counters[select].writeControl(now, value);
      return;
    }
    this.catchUp(now);
    this.counters[0].writeControl(now, value);
    // A control word sets OUT to the mode's initial level at once; a latch command changes nothing.
    if ((value & 0x30) !== 0) {
      this.drive(this.counters[0].out(now));
      this.ticks.forget();
    }
    this.schedule(now);
  }

  private readNmiStatus(now: number): number {
    const refresh = Math.floor(this.rate.ticksAt(now) / REFRESH_PULSES) & 1;
    return (
      this.nmiStatus |
      (this.counters[2].out(now) ? NMI_SC.TMR2_OUT_STS : 0) |
      (refresh ? NMI_SC.REF_TOGGLE : 0) |
      this.nmiControl
    );
  }

  private writeNmiControl(now: number, value: number): void {
    this.nmiControl = value & NMI_SC_WRITABLE;
    if (value & NMI_SC.PCI_SERR_EN) this.nmiStatus &= ~NMI_SC.SERR_NMI_STS;
    if (value & NMI_SC.IOCHK_NMI_EN) this.nmiStatus &= ~NMI_SC.IOCHK_NMI_STS;
    this.counters[2].setGate(now, (value & NMI_SC.TIM_CNT2_EN) !== 0);
  }

  private drive(level: boolean): void {
    this.pin.set(level && this.connected);
  }

  /** Edges that are due but whose timer has not run yet come before what the guest does now. */
  private catchUp(now: number): void {
    if (this.eventAt <= now) this.passEvents(this.eventAt);
  }

  /** Goes from the event at `first` to the present, from load to load. */
  private passEvents(first: number): void {
    const now = this.clock.now();
    let rises = first === this.riseAt ? 1 : 0;
    let at = first;
    for (;;) {
      this.findEvent(at);
      if (this.eventAt > now) break;
      const end = Math.min(this.counters[0].loadDue, now);
      rises += this.counters[0].rises(at, end);
      at = end;
    }
    this.armTimer();
    if (rises > 0 && this.connected) this.ticks.owe(rises);
  }

  private pulse(): void {
    this.pin.set(false);
    this.pin.set(true);
  }

  private schedule(now: number): void {
    this.findEvent(now);
    this.armTimer();
  }

  private findEvent(after: number): void {
    this.riseAt = this.counters[0].nextRise(after);
    this.eventAt = Math.min(this.riseAt, this.counters[0].loadDue);
  }

  private armTimer(): void {
    if (!this.connected || this.eventAt === Number.POSITIVE_INFINITY) this.timer.cancel();
    else this.timer.arm(this.eventAt);
  }
}
