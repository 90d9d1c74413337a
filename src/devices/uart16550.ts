// 16550A UART: National Semiconductor PC16550D data sheet, section 8 (registers) and 8.11 (FIFO interrupt operation).
// The transmitter takes no time: what is written is out, and the holding register is empty again. Input comes as fast as it is read.

import type { AccessSize, InterruptPin, IoSpace, PortHandler } from "../vmm/bus.ts";
import type { Timer, TimerQueue } from "../vmm/clock.ts";
import type { Schema, Stateful } from "../vmm/state.ts";
import { INPUT_QUEUE_SCHEMA, InputQueue } from "./input-queue.ts";

export interface Uart16550Options {
  readonly name: string;
  readonly io: IoSpace;
  readonly port: number;
  readonly interrupt: InterruptPin;
  readonly timers: TimerQueue;
  onOutput(byte: number): void;
  /** A `receive` that took less than it was given can be repeated. */
  onRoom?(): void;
  /** Whether LSR says just that the transmitter is empty, and writing to it will neither change that nor raise an interrupt. Called at each change. */
  onStatus?(usual: boolean): void;
  /** What a read of IER gives; undefined while DLM is read in its place (8.1, DLAB). Called at each change. */
  onInterruptEnable?(value: number | undefined): void;
  /** What a read of LSR gives, where it does nothing else and neither IER nor THR changes it. Called at each change. */
  onLineStatus?(value: number | undefined): void;
  /** The guest starts or ends a break condition on the line. */
  onBreak?(on: boolean): void;
}

const REGISTER = { RBR_THR_DLL: 0, IER_DLM: 1, IIR_FCR: 2, LCR: 3, MCR: 4, LSR: 5, MSR: 6, SCR: 7, count: 8 } as const;

/** 8.8. Bits 7:4 are always zero. */
const IER = { RECEIVED_DATA: 1, THR_EMPTY: 2, LINE_STATUS: 4, MODEM_STATUS: 8, ALL: 0x0f } as const;
/** 8.6, in order of priority. */
const IIR = {
  NONE: 1,
  LINE_STATUS: 6,
  RECEIVED_DATA: 4,
  TIMEOUT: 0xc,
  THR_EMPTY: 2,
  MODEM_STATUS: 0,
  FIFOS_ENABLED: 0xc0,
} as const;
/** 8.5. */
const FCR = { ENABLE: 1, CLEAR_RECEIVER: 2, TRIGGER_SHIFT: 6 } as const;
const TRIGGER_LEVELS = [1, 4, 8, 14];
/** 8.1. */
const LCR = { LENGTH: 3, STOP: 4, PARITY: 8, BREAK: 0x40, DLAB: 0x80 } as const;
/** 8.7. */
const MCR = { DTR: 1, RTS: 2, OUT1: 4, OUT2: 8, LOOP: 0x10, ALL: 0x1f } as const;
/** 8.4. */
const LSR = { DR: 1, OE: 2, PE: 4, FE: 8, BI: 0x10, THRE: 0x20, TEMT: 0x40, FIFO_ERROR: 0x80, ERRORS: 0x1e } as const;
/** 8.8; the low half are changes since the last read. */
const MSR = { DCTS: 1, DDSR: 2, TERI: 4, DDCD: 8, CTS: 0x10, DSR: 0x20, RI: 0x40, DCD: 0x80, LINES: 0xf0 } as const;

/** 8 data bits, no parity, one stop bit: so firmware leaves the line, and guests that boot without one count on it. Hardware has 0. */
const LCR_INITIAL = 3;
const FIFO_BYTES = 16;
const CLOCK_HZ = 1843200;
/** 8.11: the receiver's timeout is four characters long. */
const TIMEOUT_CHARACTERS = 4;
/** What a terminal that is there drives. */
const CONNECTED = MSR.CTS | MSR.DSR | MSR.DCD;
/**
 * Nobody hears the line before the guest listens: host input waits until the receiver's interrupt is enabled or the line status is read
 * this often in a row. Else what is typed during a boot is lost in the FIFO resets and trial reads of drivers that start up.
 */
const LISTENING_POLLS = 4;
/** In `received`: the errors of a character, and that it came from the host. */
const ENTRY = { ERRORS: 0x1f00, FROM_HOST: 0x8000 } as const;

const SCHEMA: Schema = {
  kind: "uart16550",
  version: 1,
  fields: {
    ier: "u8",
    lcr: "u8",
    mcr: "u8",
    scr: "u8",
    divisor: "u16",
    fifosEnabled: "bool",
    trigger: "u8",
    received: { array: "u16" },
    overrun: "bool",
    statusChange: "bool",
    thrEmptyPending: "bool",
    timeoutPending: "bool",
    timeoutAt: "time",
    lines: "u8",
    lineChanges: "u8",
    input: { section: INPUT_QUEUE_SCHEMA },
    listening: "bool",
    polls: "u8",
  },
  derived: ["interrupt", "timers", "timer", "usual", "toldIer", "toldLineStatus"],
};

export class Uart16550 implements Stateful, PortHandler {
  readonly schema = SCHEMA;
  ier = 0;
  lcr: number = LCR_INITIAL;
  mcr = 0;
  scr = 0;
  /** DLM and DLL. */
  divisor = 1;
  fifosEnabled = false;
  /** FCR bits 7:6. */
  trigger = 0;
  /** The receiver's FIFO, or its one buffer: data in bits 7:0, the errors of that character (LSR bits) in 12:8,
   *  ENTRY.FROM_HOST. */
  received: number[] = [];
  overrun = false;
  /** A line status error has appeared that the guest has not read. */
  statusChange = false;
  thrEmptyPending = false;
  timeoutPending = false;
  timeoutAt = Number.POSITIVE_INFINITY;
  /** Modem status as the other side drives it, and its changes. */
  lines: number = CONNECTED;
  lineChanges = 0;
  readonly input = new InputQueue();
  listening = false;
  polls = 0;
  private readonly interrupt: InterruptPin;
  private readonly timers: TimerQueue;
  private readonly timer: Timer;
  private readonly onOutput: (byte: number) => void;
  private readonly onBreak: (on: boolean) => void;
  private readonly onStatus: (usual: boolean) => void;
  private readonly onInterruptEnable: (value: number | undefined) => void;
  private usual = false;
  private readonly onLineStatus: (value: number | undefined) => void;
  private toldIer: number | undefined;
  private toldLineStatus: number | undefined;

  constructor(options: Uart16550Options) {
    this.interrupt = options.interrupt;
    this.timers = options.timers;
    this.onOutput = (byte) => options.onOutput(byte);
    this.onBreak = (on) => options.onBreak?.(on);
    this.onStatus = (usual) => options.onStatus?.(usual);
    this.onInterruptEnable = (value) => options.onInterruptEnable?.(value);
    this.onLineStatus = (value) => options.onLineStatus?.(value);
    this.input.onRoom = () => options.onRoom?.();
    this.timer = options.timers.create(`${options.name} receive timeout`, () => {
      this.timeoutAt = Number.POSITIVE_INFINITY;
      this.timeoutPending = this.received.length > 0;
      this.updateInterrupt();
    });
    options.io.mapPorts(options.name, options.port, REGISTER.count, {
      readPort: (port, size) => this.readPort(port - options.port, size),
      writePort: (port, size, value) => this.writePort(port - options.port, size, value),
    });
  }

  /** Table I, but for the line's format. Input that the host has offered is kept: it is not the guest's. */
  reset(): void {
    this.ier = 0;
    this.lcr = LCR_INITIAL;
    this.divisor = 1;
    this.mcr = 0;
    this.fifosEnabled = false;
    this.trigger = 0;
    this.clearReceiver();
    this.overrun = false;
    this.statusChange = false;
    this.thrEmptyPending = false;
    this.lineChanges = 0;
    this.listening = false;
    this.polls = 0;
    this.updateInterrupt();
  }

  afterRestore(): void {
    if (this.timeoutAt === Number.POSITIVE_INFINITY) this.timer.cancel();
    else this.timer.arm(this.timeoutAt);
    this.tellStatus();
  }

  /** Host input. Returns how many bytes were taken; the rest is to be offered again after `onRoom`. */
  receive(bytes: Uint8Array): number {
    const taken = this.input.push(bytes);
    this.feed();
    this.updateInterrupt();
    return taken;
  }

  /** The host sends a break: a character of zeroes without a stop bit (8.4, BI). */
  sendBreak(): void {
    if ((this.mcr & MCR.LOOP) === 0) this.accept((LSR.BI | LSR.FE) << 8);
    this.updateInterrupt();
  }

  /** The other side's modem lines, MSR bits 7:4. */
  setLines(lines: number): void {
    if ((this.mcr & MCR.LOOP) === 0) this.noteLines(this.lines, lines & MSR.LINES);
    this.lines = lines & MSR.LINES;
    this.updateInterrupt();
  }

  /** `register` from the first port. Wider accesses are so many of a byte, as on the ISA bus. */
  readPort(register: number, size: AccessSize): number {
    let value = 0;
    for (let i = 0; i < size; i++)
      value |= (register + i < REGISTER.count ? this.readRegister(register + i) : 0xff) << (8 * i);
    return value >>> 0;
  }

  writePort(register: number, size: AccessSize, value: number): void {
    for (let i = 0; i < size && register + i < REGISTER.count; i++)
      this.writeRegister(register + i, (value >>> (8 * i)) & 0xff);
  }

  private readRegister(register: number): number {
    if (register !== REGISTER.LSR) this.polls = 0;
    switch (register) {
      case REGISTER.RBR_THR_DLL:
        return (this.lcr & LCR.DLAB) !== 0 ? this.divisor & 0xff : this.readReceiver();
      case REGISTER.IER_DLM:
        return (this.lcr & LCR.DLAB) !== 0 ? this.divisor >> 8 : this.ier;
      case REGISTER.IIR_FCR:
        return this.readIdentification();
      case REGISTER.LCR:
        return this.lcr;
      case REGISTER.MCR:
        return this.mcr;
      case REGISTER.LSR:
        return this.readLineStatus();
      case REGISTER.MSR:
        return this.readModemStatus();
      default:
        return this.scr;
    }
  }

  private writeRegister(register: number, value: number): void {
    this.polls = 0;
    switch (register) {
      case REGISTER.RBR_THR_DLL:
        if ((this.lcr & LCR.DLAB) !== 0) this.divisor = (this.divisor & 0xff00) | value;
        else this.transmit(value);
        break;
      case REGISTER.IER_DLM:
        if ((this.lcr & LCR.DLAB) !== 0) this.divisor = (value << 8) | (this.divisor & 0xff);
        else this.writeInterruptEnable(value & IER.ALL);
        break;
      case REGISTER.IIR_FCR:
        this.writeFifoControl(value);
        break;
      case REGISTER.LCR:
        this.writeLineControl(value);
        break;
      case REGISTER.MCR:
        this.writeModemControl(value & MCR.ALL);
        break;
      case REGISTER.SCR:
        this.scr = value;
        break;
      default:
        // LSR and MSR are for reading only; the data sheet warns of writes to LSR for factory tests.
        break;
    }
  }

  private transmit(byte: number): void {
    const loops = (this.mcr & MCR.LOOP) !== 0;
    if (loops) this.accept(byte & this.dataMask());
    else this.onOutput(byte & this.dataMask());
    // 8.6: writing THR resets the interrupt; then THR is empty again.
    if (this.thrEmptyPending && !loops) return;
    this.thrEmptyPending = true;
    this.updateInterrupt();
  }

  /** Enabling the THR empty interrupt while THR is empty raises it at once. */
  private writeInterruptEnable(value: number): void {
    if ((value & ~this.ier & IER.THR_EMPTY) !== 0) this.thrEmptyPending = true;
    this.ier = value;
    this.listening = (value & IER.RECEIVED_DATA) !== 0;
    this.feed();
    this.updateInterrupt();
  }

  /** 8.5: the other bits count only together with the enable bit; changing that clears the FIFOs. */
  private writeFifoControl(value: number): void {
    const enable = (value & FCR.ENABLE) !== 0;
    const switched = enable !== this.fifosEnabled;
    if (switched || (enable && (value & FCR.CLEAR_RECEIVER) !== 0)) {
      const heard = (this.ier & IER.RECEIVED_DATA) !== 0;
      // A driver that starts up did not mean what nobody could have sent before.
      if (switched || !heard) this.returnInput();
      this.clearReceiver();
      this.listening = heard;
    }
    this.fifosEnabled = enable;
    this.trigger = enable ? value >> FCR.TRIGGER_SHIFT : 0;
    this.feed();
    this.updateInterrupt();
  }

  private writeLineControl(value: number): void {
    const changed = (value ^ this.lcr) & LCR.BREAK;
    this.lcr = value;
    this.tellStatus();
    if (changed === 0) return;
    const on = (value & LCR.BREAK) !== 0;
    if ((this.mcr & MCR.LOOP) === 0) this.onBreak(on);
    else if (on) this.accept((LSR.BI | LSR.FE) << 8);
    this.updateInterrupt();
  }

  private writeModemControl(value: number): void {
    const before = this.modemLines();
    this.mcr = value;
    this.noteLines(before, this.modemLines());
    this.feed();
    this.updateInterrupt();
  }

  private readReceiver(): number {
    const entry = this.received.shift() ?? 0;
    this.timeoutPending = false;
    this.feed();
    this.restartTimeout();
    this.updateInterrupt();
    return entry & 0xff;
  }

  private readIdentification(): number {
    const cause = this.cause();
    if (cause === IIR.THR_EMPTY) {
      this.thrEmptyPending = false;
      this.updateInterrupt();
    }
    return cause | (this.fifosEnabled ? IIR.FIFOS_ENABLED : 0);
  }

  /** 8.4: errors belong to the character at the top of the FIFO; reading clears OE, PE, FE and BI. */
  private readLineStatus(): number {
    if (!this.listening && ++this.polls >= LISTENING_POLLS) {
      this.listening = true;
      this.polls = 0;
      this.feed();
    }
    const value = this.lineStatus();
    this.overrun = false;
    this.statusChange = false;
    if (this.received.length > 0) this.received[0] &= ~ENTRY.ERRORS;
    this.updateInterrupt();
    return value;
  }

  private lineStatus(): number {
    const [top] = this.received;
    let value: number = LSR.THRE | LSR.TEMT;
    if (top !== undefined) value |= LSR.DR | ((top & ENTRY.ERRORS) >> 8);
    if (this.overrun) value |= LSR.OE;
    if (this.fifosEnabled && this.received.some((entry) => (entry & ENTRY.ERRORS) !== 0)) value |= LSR.FIFO_ERROR;
    return value;
  }

  private readModemStatus(): number {
    const value = this.modemLines() | this.lineChanges;
    this.lineChanges = 0;
    this.updateInterrupt();
    return value;
  }

  /** 8.7: in loopback the outputs of MCR are the inputs of MSR. */
  private modemLines(): number {
    if ((this.mcr & MCR.LOOP) === 0) return this.lines;
    let lines = 0;
    if ((this.mcr & MCR.RTS) !== 0) lines |= MSR.CTS;
    if ((this.mcr & MCR.DTR) !== 0) lines |= MSR.DSR;
    if ((this.mcr & MCR.OUT1) !== 0) lines |= MSR.RI;
    if ((this.mcr & MCR.OUT2) !== 0) lines |= MSR.DCD;
    return lines;
  }

  /** TERI marks only the trailing edge of RI. */
  private noteLines(before: number, after: number): void {
    const changed = before ^ after;
    if ((changed & MSR.CTS) !== 0) this.lineChanges |= MSR.DCTS;
    if ((changed & MSR.DSR) !== 0) this.lineChanges |= MSR.DDSR;
    if ((changed & before & MSR.RI) !== 0) this.lineChanges |= MSR.TERI;
    if ((changed & MSR.DCD) !== 0) this.lineChanges |= MSR.DDCD;
  }

  private capacity(): number {
    return this.fifosEnabled ? FIFO_BYTES : 1;
  }

  private dataMask(): number {
    return (1 << (5 + (this.lcr & LCR.LENGTH))) - 1;
  }

  /** Moves host input into the receiver while there is room. In loopback the line is cut off (8.7). */
  private feed(): void {
    if (!this.listening || (this.mcr & MCR.LOOP) !== 0) return;
    const room = this.capacity() - this.received.length;
    if (room <= 0 || this.input.length === 0) return;
    for (const byte of this.input.take(room)) this.accept((byte & this.dataMask()) | ENTRY.FROM_HOST);
  }

  /** A character has arrived. With the FIFO full it is lost; without FIFOs it destroys the one before (8.4, OE). */
  private accept(entry: number): void {
    if (this.received.length >= this.capacity()) {
      this.overrun = true;
      this.statusChange = true;
      if (!this.fifosEnabled) this.received = [entry];
      return;
    }
    this.received.push(entry);
    if ((entry & ENTRY.ERRORS) !== 0) this.statusChange = true;
    this.restartTimeout();
  }

  /** What came from the host and was not read waits again. */
  private returnInput(): void {
    this.input.putBack(this.received.filter((entry) => (entry & ENTRY.FROM_HOST) !== 0).map((entry) => entry & 0xff));
  }

  private clearReceiver(): void {
    this.received.length = 0;
    this.timeoutPending = false;
    this.restartTimeout();
  }

  /** 8.11: each character that arrives and each read restarts the timeout. */
  private restartTimeout(): void {
    const wanted = this.fifosEnabled && this.received.length > 0;
    this.timeoutAt = wanted ? this.timers.clock.now() + this.timeoutLength() : Number.POSITIVE_INFINITY;
    if (wanted) this.timer.arm(this.timeoutAt);
    else this.timer.cancel();
  }

  private timeoutLength(): number {
    const parity = (this.lcr & LCR.PARITY) !== 0 ? 1 : 0;
    const bits = 1 + 5 + (this.lcr & LCR.LENGTH) + parity + ((this.lcr & LCR.STOP) !== 0 ? 2 : 1);
    const nsPerBit = (16 * Math.max(this.divisor, 1) * 1e9) / CLOCK_HZ;
    return Math.ceil(TIMEOUT_CHARACTERS * bits * nsPerBit);
  }

  /** The pending interrupt of the highest priority (8.6, table III). */
  private cause(): number {
    const { ier } = this;
    if ((ier & IER.LINE_STATUS) !== 0 && this.statusChange) return IIR.LINE_STATUS;
    if ((ier & IER.RECEIVED_DATA) !== 0) {
      const level = this.fifosEnabled ? TRIGGER_LEVELS[this.trigger] : 1;
      if (this.received.length >= level) return IIR.RECEIVED_DATA;
      if (this.timeoutPending) return IIR.TIMEOUT;
    }
    if ((ier & IER.THR_EMPTY) !== 0 && this.thrEmptyPending) return IIR.THR_EMPTY;
    if ((ier & IER.MODEM_STATUS) !== 0 && this.lineChanges !== 0) return IIR.MODEM_STATUS;
    return IIR.NONE;
  }

  /** On a PC, OUT2 opens the gate between the UART and the interrupt line (IBM PC/AT Technical Reference, serial adapter). */
  private updateInterrupt(): void {
    this.interrupt.set((this.mcr & MCR.OUT2) !== 0 && this.cause() !== IIR.NONE);
    this.tellStatus();
  }

  private tellStatus(): void {
    const loops = (this.mcr & MCR.LOOP) !== 0;
    const lineStatus = this.lineStatus();
    // A read would take the line status interrupt back.
    const plain = !loops && !this.statusChange;
    const usual = plain && (this.ier & IER.THR_EMPTY) === 0 && lineStatus === (LSR.THRE | LSR.TEMT);
    if (usual !== this.usual) {
      this.usual = usual;
      this.onStatus(usual);
    }
    const ier = (this.lcr & LCR.DLAB) === 0 ? this.ier : undefined;
    if (ier !== this.toldIer) {
      this.toldIer = ier;
      this.onInterruptEnable(ier);
    }
    // Reads are counted until the guest listens, and clear errors.
    const still = this.listening && plain && (lineStatus & ~(LSR.THRE | LSR.TEMT | LSR.DR)) === 0;
    const told = still ? lineStatus : undefined;
    if (told === this.toldLineStatus) return;
    this.toldLineStatus = told;
    this.onLineStatus(told);
  }
}
