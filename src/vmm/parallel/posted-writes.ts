// Writes to devices that the vCPU does not wait for. Memory behind the PCI bridge is written so by PCI's own rules (PCI Local Bus Specification
// 3.0, 3.2.5); the rest are ports and registers that do nothing but take a value. A later access of any vCPU finds them done, and those of
// several vCPUs are done in the order in which they were posted: each takes a ticket.

import type { AccessSize } from "../bus.ts";
import type { IoAccess } from "../io-space.ts";
import { type ControlArea, GLOBAL, VCPU, WRITES_MAX } from "./control-area.ts";
import type { VcpuLink } from "./vcpu-link.ts";

const TWO_32 = 2 ** 32;

/** Whether other vCPUs have posted what has not been done. */
export function othersHavePosted(area: ControlArea, self: number): boolean {
  for (let id = 0; id < area.vcpus; id++) if (id !== self && ringHolds(area.words, area.block(id))) return true;
  return false;
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

/** The last of some posted writes of a vCPU, for the vCPU. */
export class LastPosted {
  private readonly link: VcpuLink;
  /** How much had been posted with it; undefined where it is known to have been done. */
  private position: number | undefined;

  constructor(link: VcpuLink) {
    this.link = link;
  }

  /** The write that was posted last is one of them. */
  note(): void {
    this.position = this.link.load(VCPU.WRITES_POSTED);
  }

  /** Whether it has not been done. */
  get pending(): boolean {
    if (this.position === undefined) return false;
    if (((this.position - this.link.load(VCPU.WRITES_TAKEN)) | 0) > 0) return true;
    this.position = undefined;
    return false;
  }
}

/** Of the write that the vCPU posted last. */
export function lastTicket({ words, at }: VcpuLink): number {
  return ticketAt(words, at, Atomics.load(words, at + VCPU.WRITES_POSTED) - 1);
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
  return ticketAt(words, at, Atomics.load(words, at + VCPU.WRITES_TAKEN));
}

function ticketAt(words: Int32Array, at: number, position: number): number {
  return words[at + VCPU.WRITES + (position & (WRITES_MAX - 1)) * 4 + 3];
}
