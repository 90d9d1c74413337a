// The I/O APIC: 24 interrupt pins, each with an entry that says which message to send.
// Intel 82093AA data sheet (290566) chapter 3; version 20H and its EOI register as in Intel's I/O controller hubs (ICH9 data sheet
// 13.5.6 to 13.5.8).
//
// Several sources may drive one pin; the pin is asserted as long as one of them does. Pins are driven as asserted or not: the
// polarity bit is kept for the guest and changes nothing, for there is no voltage here that could be read either way.

import {
  type AccessSize,
  type AnomalyLog,
  BANK_DWORDS,
  type InterruptPin,
  type MmioHandler,
  type PinWatch,
  type RegisterBank,
} from "../bus.ts";
import { type Schema, StateError, type Stateful } from "../state.ts";
import { BROADCAST_8, BROADCAST_XAPIC, DeliveryMode, type MessageSink } from "./interrupt-message.ts";

export const IOAPIC_PINS = 24;
/** Version 20H: has the EOI register; bits 23:16 are the highest entry. */
const VERSION_VALUE = ((IOAPIC_PINS - 1) << 16) | 0x20;

/** Offsets of the memory-mapped registers. */
export const IOREGSEL = 0x00;
export const IOWIN = 0x10;
const EOI = 0x40;

/** Indices behind IOREGSEL. */
const IOAPICID = 0x00;
const IOAPICVER = 0x01;
const IOAPICARB = 0x02;
const IOREDTBL = 0x10;

/** Bits of the low half of an entry (3.2.4). */
const DELIVERY_STATUS = 1 << 12;
const REMOTE_IRR = 1 << 14;
const LEVEL_TRIGGERED = 1 << 15;
const MASKED = 1 << 16;
const LOGICAL = 1 << 11;
const LOW_READ_ONLY = DELIVERY_STATUS | REMOTE_IRR;
const LOW_WRITABLE = 0x1ffff & ~LOW_READ_ONLY;
/** The destination, and above it the seven more bits that hypervisors may advertise. */
const HIGH_WRITABLE = 0xff000000;
const HIGH_EXTENDED = 0x00fe0000;

/** Where in a bank (`keepEntries`) the register is that IOWIN reaches after a write of this value to IOREGSEL; -1 where it is in none. */
export function registerInBank(select: number): number {
  const index = select & 0xff;
  return index < BANK_DWORDS ? 4 * index : -1;
}

/** Whether a write of this value to either half of an entry can hardly make it send a message: it masks the pin, or has neither vector nor destination. */
export function hardlySends(value: number): boolean {
  return value === 0 || (value & MASKED) !== 0;
}

/** The destination in the high half of an entry. */
export function destinationOf(high: number): number {
  return (high >>> 24) | (((high & HIGH_EXTENDED) >>> 17) << 8);
}

export interface IoApicOptions {
  readonly bus: MessageSink;
  readonly anomalies: AnomalyLog;
  /** Initial value of the id register (4 bits). */
  readonly id?: number;
  /** Bits 55:49 of an entry are bits 14:8 of the destination. */
  readonly extendedDestinationIds?: boolean;
  /** Gets a line at each message sent and each EOI. */
  readonly trace?: (line: string) => void;
  /** Gets to know what becomes of one pin's interrupts. */
  readonly watch?: PinWatch & { readonly pin: number };
}

/** One source's hold on a pin. */
interface Source {
  pin: number;
  name: string;
  asserted: boolean;
}

export class IoApic implements Stateful, MmioHandler {
  readonly schema: Schema = {
    kind: "ioapic",
    version: 1,
    fields: {
      id: "u8",
      select: "u8",
      entries: "words",
      assertions: "words",
      sources: { array: { struct: { pin: "u8", name: "string", asserted: "bool" } } },
    },
    derived: ["options", "wiring"],
  };

  private id: number;
  private select = 0;
  /** Two words an entry, the low one first. */
  private entries: Uint32Array = new Uint32Array(IOAPIC_PINS * 2);
  /** How many sources assert each pin. */
  private readonly assertions = new Uint32Array(IOAPIC_PINS);
  private readonly sources: Source[] = [];

  private readonly options: IoApicOptions;
  /** What each source is, to see whether restored state belongs to this machine. */
  private readonly wiring: string[] = [];

  constructor(options: IoApicOptions) {
    this.options = options;
    this.id = (options.id ?? 0) & 0xf;
    this.reset();
  }

  /** Registers as after power-up; the pins are wires and keep their levels. */
  reset(): void {
    this.id = (this.options.id ?? 0) & 0xf;
    this.select = 0;
    for (let pin = 0; pin < IOAPIC_PINS; pin++) {
      this.entries[pin * 2] = MASKED;
      this.entries[pin * 2 + 1] = 0;
    }
  }

  /** From now on the entries are in a bank of registers, where only 32-bit reads of IOWIN give what a register holds. */
  keepEntries(bank: RegisterBank): void {
    const entries = bank.dwords.subarray(IOREDTBL, IOREDTBL + this.entries.length);
    entries.set(this.entries);
    this.entries = entries;
    for (let word = 0; word < entries.length; word++) bank.answer(IOREDTBL + word);
  }

  /** A new source of pin `n`, named for snapshots; sources are created once, in an order that the machine's configuration fixes. */
  pin(n: number, name = "device"): InterruptPin {
    if (!(n >= 0 && n < IOAPIC_PINS)) throw new RangeError(`an I/O APIC has no pin ${n}`);
    const source: Source = { pin: n, name, asserted: false };
    this.sources.push(source);
    this.wiring.push(`${n}:${name}`);
    return {
      set: (asserted) => {
        if (source.asserted === asserted) return;
        source.asserted = asserted;
        if (asserted) this.assert(n);
        else this.deassert(n);
      },
    };
  }

  /** One more source asserts the pin; the first of them is the edge. */
  assert(pin: number): void {
    if (++this.assertions[pin] === 1) this.pinRose(pin);
  }

  /** One source less; below none is a fault of the caller, counted. */
  deassert(pin: number): void {
    if (this.assertions[pin] === 0)
      this.options.anomalies.anomaly("ioapic", `pin ${pin} deasserted more often than asserted`);
    else this.assertions[pin]--;
  }

  isAsserted(pin: number): boolean {
    return this.assertions[pin] > 0;
  }

  /** EOI of `vector`, broadcast by a local APIC or written to the EOI register. */
  endOfInterrupt(vector: number): void {
    for (let pin = 0; pin < IOAPIC_PINS; pin++) {
      const low = this.entries[pin * 2];
      if (!(low & REMOTE_IRR) || (low & 0xff) !== vector) continue;
      this.entries[pin * 2] = low & ~REMOTE_IRR;
      this.options.trace?.(`ioapic: pin ${pin} EOI ${vector}`);
      if (pin === this.options.watch?.pin) this.options.watch.served();
      this.sendLevel(pin);
    }
  }

  /** The vector of the watched pin where that is edge triggered, so that no EOI of it is broadcast; -1 where it is not. */
  watchedVector(): number {
    const { watch } = this.options;
    if (watch === undefined) return -1;
    const low = this.entries[watch.pin * 2];
    return low & MASKED || this.isLevel(low) ? -1 : low & 0xff;
  }

  /** A local APIC had an EOI of `vector`, edge triggered, which was the watched one. */
  watchedServed(vector: number): void {
    if (vector === this.watchedVector()) this.options.watch?.served();
  }

  retry(): void {
    for (let pin = 0; pin < IOAPIC_PINS; pin++) this.sendLevel(pin);
  }

  // ---- Registers ----

  /** Registers are 32 bits wide at multiples of 10H (3.1); narrower reads get the low part. */
  readMmio(offset: number, size: AccessSize): number {
    let value = 0;
    if (offset === IOREGSEL) value = this.select;
    else if (offset === IOWIN) value = this.readIndexed();
    else if (offset !== EOI) this.anomaly("read of no register");
    return size === 4 ? value : value & (size === 1 ? 0xff : 0xffff);
  }

  writeMmio(offset: number, size: AccessSize, value: number): void {
    // The two registers of eight bits can be written by byte.
    if (offset === IOREGSEL) this.select = value & 0xff;
    else if (offset === EOI) this.endOfInterrupt(value & 0xff);
    else if (offset !== IOWIN) this.anomaly("write to no register");
    else if (size !== 4) this.anomaly("write of a part of a register");
    else this.writeIndexed(value);
  }

  afterRestore(): void {
    const restored = this.sources.map((source) => `${source.pin}:${source.name}`);
    if (restored.join() !== this.wiring.join())
      throw new StateError("the I/O APIC's pins are wired otherwise than in the snapshot");
    if (this.entries.length !== 2 * IOAPIC_PINS || this.assertions.length !== IOAPIC_PINS)
      throw new StateError("the I/O APIC in the snapshot has another number of pins");
  }

  private readIndexed(): number {
    const index = this.select;
    if (index === IOAPICID || index === IOAPICARB) return this.id << 24;
    if (index === IOAPICVER) return VERSION_VALUE;
    const word = index - IOREDTBL;
    if (word >= 0 && word < this.entries.length) return this.entries[word];
    this.anomaly("read of no indexed register");
    return 0;
  }

  private writeIndexed(value: number): void {
    const index = this.select;
    if (index === IOAPICID) {
      // The arbitration id follows the id (3.2.3).
      this.id = (value >>> 24) & 0xf;
      return;
    }
    const word = index - IOREDTBL;
    if (!(word >= 0 && word < this.entries.length)) {
      this.anomaly("write to no writable indexed register");
      return;
    }
    if (word & 1) {
      const writable = HIGH_WRITABLE | (this.options.extendedDestinationIds ? HIGH_EXTENDED : 0);
      this.entries[word] = value & writable;
      // A destination that nobody was at may have become one that accepts.
      this.sendLevel(word >>> 1);
    } else this.writeLow(word >>> 1, value);
  }

  /**
   * An entry that becomes edge triggered has no remote IRR (kernels switch to edge and back to be rid of one). In an entry whose
   * vector changes while it waits for an EOI, the EOI of the new vector is the one that counts, as only the entry is compared.
   */
  private writeLow(pin: number, value: number): void {
    const before = this.entries[pin * 2];
    const kept = value & LEVEL_TRIGGERED ? before & REMOTE_IRR : 0;
    const low = (value & LOW_WRITABLE) | kept;
    this.entries[pin * 2] = low;
    if (pin === this.options.watch?.pin && (before & ~low & MASKED || (before ^ low) & (LEVEL_TRIGGERED | 0xff)))
      this.options.watch.rerouted();
    this.sendLevel(pin);
  }

  // ---- Sending ----

  /** 3.2.4, bit 16: an edge on a masked pin is neither delivered nor kept. */
  private pinRose(pin: number): void {
    const low = this.entries[pin * 2];
    if (low & MASKED) return;
    if (this.isLevel(low)) this.sendLevel(pin);
    else this.send(pin, false);
  }

  /** Sends for a pin that is level triggered, let through, asserted, and not in service already. */
  private sendLevel(pin: number): void {
    const low = this.entries[pin * 2];
    if (low & (MASKED | REMOTE_IRR) || !this.isLevel(low) || this.assertions[pin] === 0) return;
    // The remote IRR says that a local APIC accepted (3.2.4, bit 14). It is set first: the message may cause an EOI at once.
    this.entries[pin * 2] = low | REMOTE_IRR;
    if (!this.send(pin, true)) this.entries[pin * 2] &= ~REMOTE_IRR;
  }

  /** The other delivery modes are edge triggered whatever the entry says (3.2.4, bits 10:8). */
  private isLevel(low: number): boolean {
    const mode = (low >>> 8) & 7;
    return (low & LEVEL_TRIGGERED) !== 0 && (mode === DeliveryMode.FIXED || mode === DeliveryMode.LOWEST_PRIORITY);
  }

  private send(pin: number, level: boolean): boolean {
    const low = this.entries[pin * 2];
    const high = this.entries[pin * 2 + 1];
    const mode = (low >>> 8) & 7;
    if (mode === DeliveryMode.REMOTE_READ || mode === DeliveryMode.STARTUP) {
      this.anomaly("entry with a reserved delivery mode");
      return false;
    }
    const vector = low & 0xff;
    const accepted = this.options.bus.send({
      destination: destinationOf(high),
      broadcast: this.options.extendedDestinationIds ? BROADCAST_XAPIC : BROADCAST_8,
      logical: (low & LOGICAL) !== 0,
      mode,
      vector,
      level,
    });
    this.options.trace?.(`ioapic: pin ${pin} ${level ? "level" : "edge"} ${vector}${accepted ? "" : " not accepted"}`);
    return accepted;
  }

  private anomaly(what: string): void {
    this.options.anomalies.anomaly("ioapic", what);
  }
}
