// One 8259A programmable interrupt controller: request and service registers, priority resolver, command words.
// Intel 8259A data sheet (order 231468), by its section headings; what a PC's chip set adds or drops: ICH9 data sheet 13.4.
// The pair, its wiring and its ports are in pic.ts.

import type { AnomalyLog } from "../bus.ts";
import type { Schema, Stateful } from "../state.ts";

/** Initialization command word 1 (A0 = 0). LTIM (bit 3) has no effect on a PC: the ELCR replaces it (ICH9 13.4.2). */
const ICW1 = { IC4: 0x01, SNGL: 0x02, SELECT: 0x10 } as const;
const ICW4 = { uPM: 0x01, AEOI: 0x02, SFNM: 0x10 } as const;
const OCW3 = { RIS: 0x01, RR: 0x02, P: 0x04, SELECT: 0x08, SMM: 0x20, ESMM: 0x40 } as const;

/** OCW2 bits 7..5: R, SL, EOI. */
const OCW2 = {
  CLEAR_ROTATE_IN_AEOI: 0,
  NON_SPECIFIC_EOI: 1,
  NO_OPERATION: 2,
  SPECIFIC_EOI: 3,
  SET_ROTATE_IN_AEOI: 4,
  ROTATE_ON_NON_SPECIFIC_EOI: 5,
  SET_PRIORITY: 6,
  ROTATE_ON_SPECIFIC_EOI: 7,
} as const;

/** The input that an acknowledge without a request seems to come from ("Edge and Level Triggered Modes": the default IR7). */
export const DEFAULT_IR = 7;

export const i8259Schema: Schema = {
  kind: "i8259",
  version: 1,
  fields: {
    lines: "u8",
    latch: "u8",
    level: "u8",
    imr: "u8",
    isr: "u8",
    expect: "u8",
    ready: "bool",
    icw1: "u8",
    icw2: "u8",
    icw3: "u8",
    icw4: "u8",
    lowest: "u8",
    rotateInAeoi: "bool",
    specialMask: "bool",
    readIsr: "bool",
    poll: "bool",
  },
  derived: ["name", "master", "anomalies", "ended"],
};

export class I8259 implements Stateful {
  readonly schema = i8259Schema;
  readonly name: string;
  private readonly master: boolean;
  private readonly anomalies: AnomalyLog;

  /** Levels of the inputs IR0..IR7. */
  private lines = 0;
  /** Edge-triggered requests not yet acknowledged. */
  private latch = 0;
  /** Inputs that are level-triggered: the chip's half of the ELCR. */
  private level = 0;
  private imr = 0;
  private isr = 0;
  /** Number of the initialization word that the next write with A0 = 1 is; 0: it is OCW1. */
  private expect = 0;
  /** The initialization sequence has been completed. */
  private ready = false;
  private icw1 = 0;
  private icw2 = 0;
  private icw3 = 0;
  private icw4 = 0;
  /** The input of lowest priority; the next one has the highest. */
  private lowest = 7;
  private rotateInAeoi = false;
  private specialMask = false;
  private readIsr = false;
  /** The next read is a poll. */
  private poll = false;
  /** Inputs whose service ended since `takeEnded`. */
  private ended = 0;

  constructor(name: string, master: boolean, anomalies: AnomalyLog) {
    this.name = name;
    this.master = master;
    this.anomalies = anomalies;
  }

  /** Power-on state: silent until a guest has initialized the chip. The inputs keep their levels. */
  reset(): void {
    this.level = 0;
    this.clearOnIcw1();
    this.expect = 0;
    this.ready = false;
    this.icw1 = this.icw2 = this.icw3 = this.icw4 = 0;
    this.rotateInAeoi = false;
    this.poll = false;
  }

  setLine(ir: number, high: boolean): void {
    const bit = 1 << ir;
    if (high === ((this.lines & bit) !== 0)) return;
    if (high) {
      this.lines |= bit;
      this.latch |= bit;
    } else {
      // "Edge and Level Triggered Modes": the input must stay high until the first INTA, or the request is gone.
      this.lines &= ~bit;
      this.latch &= ~bit;
    }
  }

  get elcr(): number {
    return this.level;
  }

  set elcr(value: number) {
    this.level = value;
  }

  /** Interrupt request register: latched edges, and the inputs themselves where they are level-triggered. */
  get irr(): number {
    return (this.latch & ~this.level) | (this.lines & this.level);
  }

  /** The input that INT stands for, or -1 when INT is low. */
  get requested(): number {
    if (!this.ready) return -1;
    const requests = this.irr & ~this.imr;
    if (requests === 0) return -1;
    const inService = this.blocking();
    for (let i = 1; i <= 8; i++) {
      const ir = (this.lowest + i) & 7;
      const bit = 1 << ir;
      if (inService & bit) {
        // "Special Fully Nested Mode": a slave that is in service is not locked out of the master's priority logic.
        const nests = this.master && (this.icw4 & ICW4.SFNM) !== 0 && this.hasSlave(ir);
        return nests && requests & bit ? ir : -1;
      }
      if (requests & bit) return ir;
    }
    return -1;
  }

  /** Whether a slave is wired to `ir` as the master has been told (ICW3); never in single mode. */
  hasSlave(ir: number): boolean {
    return this.master && (this.icw1 & ICW1.SNGL) === 0 && (this.icw3 & (1 << ir)) !== 0;
  }

  /** The identity that a slave answers to on the cascade lines, ICW3 bits 2..0. */
  get slaveId(): number {
    return this.icw3 & 7;
  }

  /** The next read acknowledges. */
  get polled(): boolean {
    return this.poll;
  }

  /** False from ICW1 to the last word of the initialization. */
  get initialized(): boolean {
    return this.ready;
  }

  get masks(): number {
    return this.imr;
  }

  /** What is written and read with A0 = 1, where that is the mask register and the read no poll. */
  get plainMasks(): number | undefined {
    return this.expect === 0 && !this.poll ? this.imr : undefined;
  }

  /** Inputs (a bit each) whose service ended since this was asked last, by a command or by itself. */
  takeEnded(): number {
    const { ended } = this;
    this.ended = 0;
    return ended;
  }

  vector(ir: number): number {
    return (this.icw2 & 0xf8) | ir;
  }

  /** Both INTA cycles for the input that is requested now; the default IR7, without an in-service bit, when none is. */
  acknowledge(): number {
    const ir = this.requested;
    if (ir < 0) return DEFAULT_IR;
    this.serve(ir);
    return ir;
  }

  /** Sets the in-service bit of `ir` as INTA does, or, with automatic end of interrupt, does not let it stand. */
  serve(ir: number): void {
    const bit = 1 << ir;
    this.latch &= ~bit;
    if ((this.icw4 & ICW4.AEOI) === 0) {
      this.isr |= bit;
      return;
    }
    this.ended |= bit;
    if (this.rotateInAeoi) this.lowest = ir;
  }

  read(a0: number): number {
    if (this.poll) {
      // "Poll Command": the read is an acknowledge, and gives the input's number instead of a vector.
      this.poll = false;
      const ir = this.requested;
      if (ir < 0) return 0;
      this.serve(ir);
      return 0x80 | ir;
    }
    if (a0) return this.imr;
    return this.readIsr ? this.isr : this.irr;
  }

  write(a0: number, value: number): void {
    if (a0) this.writeData(value);
    else if (value & ICW1.SELECT) this.writeIcw1(value);
    else if (value & OCW3.SELECT) this.writeOcw3(value);
    else this.writeOcw2(value);
  }

  /** In-service inputs that hold others back; with the special mask, those that are masked do not. */
  private blocking(): number {
    return this.specialMask ? this.isr & ~this.imr : this.isr;
  }

  private writeIcw1(value: number): void {
    this.clearOnIcw1();
    this.icw1 = value;
    if ((value & ICW1.IC4) === 0) this.icw4 = 0;
    this.ready = false;
    this.expect = 2;
  }

  /** "Initialization Command Words", a to f. The in-service register goes with it, or a crash kernel could never take an interrupt. */
  private clearOnIcw1(): void {
    this.latch = 0;
    this.imr = 0;
    this.isr = 0;
    this.lowest = 7;
    this.specialMask = false;
    this.readIsr = false;
    this.poll = false;
  }

  private writeData(value: number): void {
    switch (this.expect) {
      case 0:
        this.imr = value;
        return;
      case 2:
        this.icw2 = value;
        if ((this.icw1 & ICW1.SNGL) === 0) this.expect = 3;
        else this.expectIcw4();
        return;
      case 3:
        this.icw3 = value;
        this.expectIcw4();
        return;
      default:
        this.icw4 = value;
        if ((value & ICW4.uPM) === 0) this.anomalies.anomaly(this.name, "ICW4 asks for MCS-80 mode");
        this.expect = 0;
        this.ready = true;
    }
  }

  private expectIcw4(): void {
    this.expect = this.icw1 & ICW1.IC4 ? 4 : 0;
    if (this.expect === 0) this.ready = true;
  }

  private writeOcw2(value: number): void {
    const ir = value & 7;
    switch (value >> 5) {
      case OCW2.CLEAR_ROTATE_IN_AEOI:
        this.rotateInAeoi = false;
        break;
      case OCW2.SET_ROTATE_IN_AEOI:
        this.rotateInAeoi = true;
        break;
      case OCW2.NON_SPECIFIC_EOI:
        this.endHighest();
        break;
      case OCW2.ROTATE_ON_NON_SPECIFIC_EOI: {
        const ended = this.endHighest();
        if (ended >= 0) this.lowest = ended;
        break;
      }
      case OCW2.SPECIFIC_EOI:
        this.end(ir);
        break;
      case OCW2.ROTATE_ON_SPECIFIC_EOI:
        this.end(ir);
        this.lowest = ir;
        break;
      case OCW2.SET_PRIORITY:
        this.lowest = ir;
        break;
      default:
        break;
    }
  }

  /** "End of Interrupt": the highest in-service bit, but with the special mask none that is masked. */
  private endHighest(): number {
    const candidates = this.blocking();
    for (let i = 1; i <= 8; i++) {
      const ir = (this.lowest + i) & 7;
      if ((candidates & (1 << ir)) === 0) continue;
      this.end(ir);
      return ir;
    }
    return -1;
  }

  private end(ir: number): void {
    this.ended |= this.isr & (1 << ir);
    this.isr &= ~(1 << ir);
  }

  private writeOcw3(value: number): void {
    if (value & OCW3.ESMM) this.specialMask = (value & OCW3.SMM) !== 0;
    this.poll = (value & OCW3.P) !== 0;
    if (!this.poll && value & OCW3.RR) this.readIsr = (value & OCW3.RIS) !== 0;
  }
}
