// Writes to devices that the vCPU does not wait for. Memory behind the PCI bridge is written so by PCI's own rules (PCI Local Bus Specification
// 3.0, 3.2.5); the rest are ports and registers that do nothing but take a value. A later access of any vCPU finds them done, and those of
// several vCPUs are done in the order in which they were posted: each takes a ticket.

import type { AccessSize } from "../bus.ts";
import type { IoAccess } from "../io-space.ts";
import { type ControlArea, GLOBAL, VCPU, WRITES_MAX } from "./control-area.ts";
import type { VcpuLink } from "./vcpu-link.ts";

const TWO_32 = 2 ** 32;

/** What comes of a `later` write can wait for the next access, or a millisecond; this says of which values it can, if not of all. */
type Wakes = "now" | "later" | ((value: number) => "now" | "later");

/** A range of guest-physical memory where writes are posted. */
export interface PostedRange {
  readonly base: number;
  readonly length: number;
  readonly wakes: Wakes;
}

/** A port where writes of one size are posted. */
export interface PostedPort {
  readonly port: number;
  readonly size: AccessSize;
  readonly wakes: Wakes;
  /** What a read of a byte gives right after such a write, as long as the device says that its status is as usual (`setUsual`); while it is not,
   *  something may come of the write. */
  readonly status?: { readonly port: number; readonly value: number; readonly flag: number };
  /** The value selects what these ports reach, by a number or -1; of some numbers it is known that nobody answers (`setUnanswered`). */
  readonly selects?: { readonly port: number; readonly bytes: number; target(value: number): number };
}

/** A port whose byte is known without asking while the device says so (`setKnown`): writes to it are all posted, and take the bits of `mask`. */
export interface KnownPort {
  readonly port: number;
  readonly index: number;
  readonly mask: number;
}

/** What a vCPU's accesses need not wait for. */
export interface PostedAccesses {
  readonly ranges: readonly PostedRange[];
  readonly ports: readonly PostedPort[];
  readonly known: readonly KnownPort[];
}

/** Says whether the status with this flag, below 8, is as usual. */
export function setUsual(area: ControlArea, flag: number, usual: boolean): void {
  Atomics.store(area.words, GLOBAL.USUAL + flag, Number(usual));
}

export function isUsual(words: Int32Array, flag: number): boolean {
  return Atomics.load(words, GLOBAL.USUAL + flag) !== 0;
}

const IS_KNOWN = 0x100;

/** Says what the byte with this index, below 8, is now; undefined: to be asked for. */
export function setKnown(area: ControlArea, index: number, value: number | undefined): void {
  Atomics.store(area.words, GLOBAL.KNOWN + index, value === undefined ? 0 : value | IS_KNOWN);
}

/** What a byte is; undefined: to be asked for. */
export function knownValue(words: Int32Array, index: number): number | undefined {
  const value = Atomics.load(words, GLOBAL.KNOWN + index);
  return value & IS_KNOWN ? value & 0xff : undefined;
}

/** Whether other vCPUs have posted what has not been done. */
export function othersHavePosted(area: ControlArea, self: number): boolean {
  for (let id = 0; id < area.vcpus; id++) if (id !== self && ringHolds(area.words, area.block(id))) return true;
  return false;
}

/** Says that nobody answers where a `PostedPort` selects this target, below 512: reads give all ones. It stays so. */
export function setUnanswered(area: ControlArea, target: number): void {
  Atomics.or(area.words, GLOBAL.UNANSWERED + (target >>> 5), 1 << (target & 31));
}

export function isUnanswered(words: Int32Array, target: number): boolean {
  return (Atomics.load(words, GLOBAL.UNANSWERED + (target >>> 5)) & (1 << (target & 31))) !== 0;
}

/** Bit of an entry's size: a port. Bits 31:12 are those of the address from 32 on. */
const IS_PORT = 0x100;
const SIZE = 0xff;
const ADDRESS_HIGH_SHIFT = 12;

/** Puts a write into the vCPU's ring. False where there is no room: then the access has to wait. */
export function postWrite(link: VcpuLink, isPort: boolean, address: number, size: AccessSize, value: number): boolean {
  const { words, at } = link;
  const written = Atomics.load(words, at + VCPU.WRITES_POSTED);
  if (((written - Atomics.load(words, at + VCPU.WRITES_TAKEN)) | 0) >= WRITES_MAX) return false;
  const entry = at + VCPU.WRITES + (written & (WRITES_MAX - 1)) * 4;
  words[entry] = address % TWO_32;
  words[entry + 1] = (Math.floor(address / TWO_32) << ADDRESS_HIGH_SHIFT) | size | (isPort ? IS_PORT : 0);
  words[entry + 2] = value;
  words[entry + 3] = Atomics.add(words, GLOBAL.WRITES_TICKET, 1);
  Atomics.store(words, at + VCPU.WRITES_POSTED, (written + 1) | 0);
  return true;
}

/** The side of the devices' thread, for all vCPUs. */
export class PostedWrites {
  private readonly links: readonly VcpuLink[];
  /** The vCPU whose ring holds the write to do next, or -1, and its ticket. */
  private first = -1;
  private ticket = 0;

  constructor(links: readonly VcpuLink[]) {
    this.links = links;
  }

  /** Does what has been posted until now, not what is posted meanwhile, which need not end; true if there was anything. */
  take(io: IoAccess): boolean {
    const end = Atomics.load(this.links[0].words, GLOBAL.WRITES_TICKET);
    let any = false;
    for (let found = this.findFirst(); found && ((this.ticket - end) | 0) < 0; found = this.findNext()) {
      this.perform(this.links[this.first], io);
      any = true;
    }
    return any;
  }

  /** The one with the ticket after the last needs no look at the other rings. */
  private findNext(): boolean {
    const link = this.links[this.first];
    const next = (this.ticket + 1) | 0;
    if (ringHolds(link.words, link.at) && firstTicket(link) === next) {
      this.ticket = next;
      return true;
    }
    return this.findFirst();
  }

  /**
   * Of all that are posted the one with the lowest ticket. What one vCPU posted because of what another had posted may be seen before that one,
   * where the rings are looked at in another order, but not by two looks: so it has to be the lowest in both.
   */
  private findFirst(): boolean {
    this.first = -1;
    for (;;) {
      const before = this.first;
      for (let id = 0; id < this.links.length; id++) {
        const link = this.links[id];
        if (!ringHolds(link.words, link.at)) continue;
        const ticket = firstTicket(link);
        if (this.first >= 0 && ((ticket - this.ticket) | 0) >= 0) continue;
        this.first = id;
        this.ticket = ticket;
      }
      if (this.first === before) return before >= 0;
    }
  }

  private perform({ words, at }: VcpuLink, io: IoAccess): void {
    const taken = Atomics.load(words, at + VCPU.WRITES_TAKEN);
    const entry = at + VCPU.WRITES + (taken & (WRITES_MAX - 1)) * 4;
    const kind = words[entry + 1];
    const address = (kind >>> ADDRESS_HIGH_SHIFT) * TWO_32 + (words[entry] >>> 0);
    const size = (kind & SIZE) as AccessSize;
    const value = words[entry + 2] >>> 0;
    if (kind & IS_PORT) io.writePort(address, size, value);
    else io.writeMmio(address, size, value);
    // Who sees it taken sees what came of it.
    Atomics.store(words, at + VCPU.WRITES_TAKEN, (taken + 1) | 0);
  }
}

function ringHolds(words: Int32Array, at: number): boolean {
  return Atomics.load(words, at + VCPU.WRITES_POSTED) !== Atomics.load(words, at + VCPU.WRITES_TAKEN);
}

function firstTicket({ words, at }: VcpuLink): number {
  return words[at + VCPU.WRITES + (Atomics.load(words, at + VCPU.WRITES_TAKEN) & (WRITES_MAX - 1)) * 4 + 3];
}
