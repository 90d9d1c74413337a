// The pair of 8259A interrupt controllers of a PC, its cascade, and the edge/level control registers.
// Intel 8259A data sheet; ICH9 data sheet 13.4 (ports, ELCR). REQUIREMENTS 58-61, TRAPS 6 and 7.
//
// A request follows its input: one that falls before it is acknowledged is gone, for edges too (8259A, "Edge and Level
// Triggered Modes"). So a device on an edge-triggered input holds the line high until it is served; a short pulse may be lost.

import type { AccessSize, AnomalyLog, InterruptPin, PinWatch, PortHandler } from "../bus.ts";
import type { Schema, Stateful } from "../state.ts";
import { StateError } from "../state.ts";
import { readBytes, writeBytes } from "./byte-ports.ts";
import { DEFAULT_IR, I8259, i8259Schema } from "./i8259.ts";

export const PIC_PORTS = { master: 0x20, slave: 0xa0, elcr: 0x4d0 } as const;

/** Input of the master that the slave's INT is wired to. */
const CASCADE = 2;

/** Inputs that cannot be made level-triggered: IRQ 0, 1 and 2; 8 and 13 (ICH9 13.4.10, 13.4.11). */
const ELCR_FIXED = [0x07, 0x21] as const;

/** What an INTA cycle reads when no chip drives the data bus. */
const FLOATING_BUS = 0xff;

export interface PicOptions {
  readonly anomalies: AnomalyLog;
  /** The pair's INTR output, called on each change. It falls and rises again when one request is accepted and another is left. */
  readonly intr: (asserted: boolean) => void;
  /** Gets to know what becomes of IRQ 0. */
  readonly timerWatch?: PinWatch;
  /** What a read of a chip's mask register gives, of the master (0) or the slave (1); undefined while it does something, or a write is no OCW1. Called
   *  at each change. */
  readonly onMask?: (chip: 0 | 1, value: number | undefined) => void;
}

/** The interrupt of the 8254. */
const TIMER_IRQ = 0;

const schema: Schema = {
  kind: "i8259-pair",
  version: 1,
  fields: {
    master: { section: i8259Schema },
    slave: { section: i8259Schema },
    sources: "bytes",
    output: "bool",
    offered: "i32",
  },
  derived: ["anomalies", "intr", "timerWatch", "sourceIrq", "asserted", "onMask", "toldMasks"],
};

export class Pic implements Stateful, PortHandler {
  readonly schema = schema;
  private readonly anomalies: AnomalyLog;
  private readonly intr: (asserted: boolean) => void;
  private readonly timerWatch: PinWatch | undefined;
  private readonly onMask: PicOptions["onMask"];
  private readonly toldMasks: (number | undefined)[] = [undefined, undefined];
  private readonly master: I8259;
  private readonly slave: I8259;

  /** Level of each source, in the order in which their handles were made. */
  private sources = new Uint8Array(0);
  private readonly sourceIrq: number[] = [];
  /** Number of sources that assert each IRQ; the input is high while there is one. */
  private readonly asserted = new Uint32Array(16);
  private output = false;
  /** The master's input that INTR was last raised for and that has not been accepted, or -1. */
  private offered = -1;

  constructor(options: PicOptions) {
    this.anomalies = options.anomalies;
    this.intr = options.intr;
    this.timerWatch = options.timerWatch;
    this.onMask = options.onMask;
    this.master = new I8259("pic master", true, options.anomalies);
    this.slave = new I8259("pic slave", false, options.anomalies);
  }

  /** A new source of ISA interrupt `irq`. Sources are counted: the input falls when the last one that asserts it lets go. */
  pin(irq: number): InterruptPin {
    if (!Number.isInteger(irq) || irq < 0 || irq > 15 || irq === CASCADE) {
      throw new RangeError(`there is no 8259 input for IRQ ${irq}`);
    }
    const source = this.sourceIrq.push(irq) - 1;
    const sources = new Uint8Array(this.sourceIrq.length);
    sources.set(this.sources);
    this.sources = sources;
    return { set: (asserted) => this.setSource(source, asserted) };
  }

  /** Whether INTR is high. Asks for no vector: that is decided when the processor accepts (REQUIREMENTS 61). */
  pending(): boolean {
    return this.output;
  }

  /** The processor's two INTA cycles: the vector of the request that has the highest priority now. */
  acknowledge(): number {
    const vector = this.interruptAcknowledge();
    this.offered = -1;
    // INTR falls with the acknowledge, so that who takes it as an edge sees the next request too.
    this.setOutput(false);
    this.update();
    this.tellServed();
    return vector;
  }

  reset(): void {
    this.master.reset();
    this.slave.reset();
    this.offered = -1;
    this.update();
    this.tellMasks();
  }

  readPort(port: number, size: AccessSize): number {
    return readBytes((at) => this.readByte(at), port, size);
  }

  writePort(port: number, size: AccessSize, value: number): void {
    writeBytes((at, byte) => this.writeByte(at, byte), port, size, value);
  }

  afterRestore(): void {
    if (this.sources.length !== this.sourceIrq.length) {
      throw new StateError(
        `the machine has ${this.sourceIrq.length} sources of ISA interrupts, but the state has ${this.sources.length}`,
      );
    }
    this.asserted.fill(0);
    this.sourceIrq.forEach((irq, source) => {
      this.asserted[irq] += this.sources[source];
    });
    this.tellMasks();
  }

  private setSource(source: number, asserted: boolean): void {
    if (asserted === (this.sources[source] !== 0)) return;
    this.sources[source] = asserted ? 1 : 0;
    const irq = this.sourceIrq[source];
    this.asserted[irq] += asserted ? 1 : -1;
    (irq < 8 ? this.master : this.slave).setLine(irq & 7, this.asserted[irq] !== 0);
    this.update();
  }

  private interruptAcknowledge(): number {
    const ir = this.master.requested;
    if (ir < 0) {
      // The request went away after INTR had been seen. Where it was the slave's, the master had resolved its input already,
      // and it is the slave that answers with its default IR7; the master then waits for an EOI. What is masked it does not resolve.
      const resolved = this.offered >= 0 && (this.master.masks & (1 << this.offered)) === 0;
      if (!resolved || !this.master.hasSlave(this.offered)) {
        this.anomalies.anomaly("pic", "spurious IRQ 7");
        return this.master.vector(DEFAULT_IR);
      }
      this.master.serve(this.offered);
      return this.slaveVector(this.offered);
    }
    this.master.serve(ir);
    return this.master.hasSlave(ir) ? this.slaveVector(ir) : this.master.vector(ir);
  }

  private slaveVector(ir: number): number {
    if (ir !== CASCADE || this.slave.slaveId !== CASCADE) {
      this.anomalies.anomaly("pic", `no slave answers to identity ${ir}`);
      return FLOATING_BUS;
    }
    if (this.slave.requested < 0) this.anomalies.anomaly("pic", "spurious IRQ 15");
    const vector = this.slave.vector(this.slave.acknowledge());
    this.dropCascade();
    return vector;
  }

  /** A slave's INT falls with its acknowledge even where it has a request left, which the master then sees as an edge. */
  private dropCascade(): void {
    this.master.setLine(CASCADE, false);
  }

  private update(): void {
    this.master.setLine(CASCADE, this.slave.requested >= 0);
    const ir = this.master.requested;
    if (ir >= 0) this.offered = ir;
    else if (!this.master.initialized) this.offered = -1;
    this.setOutput(ir >= 0);
  }

  private setOutput(high: boolean): void {
    if (high === this.output) return;
    this.output = high;
    this.intr(high);
  }

  private readByte(port: number): number {
    let value = FLOATING_BUS;
    if ((port & ~1) === PIC_PORTS.master) value = this.master.read(port & 1);
    else if ((port & ~1) === PIC_PORTS.slave) {
      if (this.slave.polled) this.dropCascade();
      value = this.slave.read(port & 1);
    } else if (port === PIC_PORTS.elcr) value = this.master.elcr;
    else if (port === PIC_PORTS.elcr + 1) value = this.slave.elcr;
    // The read may have been a poll, which acknowledges.
    this.update();
    this.tellServed();
    this.tellMasks();
    return value;
  }

  private writeByte(port: number, value: number): void {
    const { masks } = this.master;
    if ((port & ~1) === PIC_PORTS.master) this.master.write(port & 1, value);
    else if ((port & ~1) === PIC_PORTS.slave) this.slave.write(port & 1, value);
    else if (port === PIC_PORTS.elcr) this.master.elcr = value & ~ELCR_FIXED[0];
    else if (port === PIC_PORTS.elcr + 1) this.slave.elcr = value & ~ELCR_FIXED[1];
    else return;
    this.update();
    if (masks & ~this.master.masks & (1 << TIMER_IRQ)) this.timerWatch?.rerouted();
    this.tellServed();
    this.tellMasks();
  }

  private tellMasks(): void {
    this.tellMask(0, this.master.plainMasks);
    this.tellMask(1, this.slave.plainMasks);
  }

  private tellMask(chip: 0 | 1, masks: number | undefined): void {
    if (masks === this.toldMasks[chip]) return;
    this.toldMasks[chip] = masks;
    this.onMask?.(chip, masks);
  }

  private tellServed(): void {
    if (this.master.takeEnded() & (1 << TIMER_IRQ)) this.timerWatch?.served();
  }
}
