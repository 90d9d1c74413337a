// Accesses of a vCPU to devices, which another thread runs: the vCPU writes one record, rings, and waits for the answer, at first by spinning,
// for most answers come within a few microseconds. Memory writes into PCI windows are posted, as on a PCI bus (PCI Local Bus Specification
// 3.0, 3.2.5): nobody waits for them, and a later access of any vCPU finds them done. So are writes to ports that do nothing but take a value,
// and EOIs of level-triggered interrupts.

import type { AccessSize } from "../bus.ts";
import type { IoAccess } from "../io-space.ts";
import { ACCESS, type ControlArea, type Doorbell, GLOBAL, NEWS, TURN, VCPU, WRITES_MAX } from "./control-area.ts";
import { spinPause } from "./spin.ts";
import type { VcpuLink } from "./vcpu-link.ts";

const TWO_32 = 2 ** 32;
/** An answer that takes longer than so many looks is waited for asleep. */
const SPINS = 400;

/** So many posted writes to ports wake the devices' thread; fewer wait for the end of the run. A console's line is many of them. */
const RING_AFTER = 16;

/** A range of guest-physical memory where writes are posted. */
export interface PostedRange {
  readonly base: number;
  readonly length: number;
}

/** A port where writes of one size are posted. */
export interface PostedPort {
  readonly port: number;
  readonly size: AccessSize;
  /** What a read of a byte gives right after such a write, as long as the device says that its status is as usual (`setUsual`). */
  readonly status?: { readonly port: number; readonly value: number };
}

/** What a vCPU's accesses need not wait for. */
export interface PostedAccesses {
  readonly ranges: readonly PostedRange[];
  readonly ports: readonly PostedPort[];
}

/** Bit of an entry's size: a port. */
const IS_PORT = 0x100;

/** Says whether the status that goes with a posted port, by its position among them, is as usual. */
export function setUsual(area: ControlArea, position: number, usual: boolean): void {
  Atomics.store(area.words, GLOBAL.USUAL + position, Number(usual));
}

/** The vCPU's side. */
export class ExitChannel implements IoAccess {
  readonly statistics = { exits: 0, posted: 0, slept: 0 };
  private readonly link: VcpuLink;
  private readonly bell: Doorbell;
  private readonly posted: PostedAccesses;
  /** Position of the port that the access before wrote to without waiting; -1 if it was none. */
  private justPosted = -1;
  /** Posted writes that the devices' thread was not woken for. */
  private unrung = 0;

  constructor(link: VcpuLink, bell: Doorbell, posted: PostedAccesses) {
    this.link = link;
    this.bell = bell;
    this.posted = posted;
  }

  readPort(port: number, size: AccessSize): number {
    if (this.justPosted >= 0 && size === 1) {
      const { status } = this.posted.ports[this.justPosted];
      if (status?.port === port && Atomics.load(this.link.words, GLOBAL.USUAL + this.justPosted) !== 0) {
        this.justPosted = -1;
        return status.value;
      }
    }
    return this.exit(ACCESS.PORT_READ, port, size, 0);
  }

  writePort(port: number, size: AccessSize, value: number): void {
    const { ports } = this.posted;
    for (let n = 0; n < ports.length; n++) {
      if (ports[n].port !== port || ports[n].size !== size || !this.post(port, size | IS_PORT, value)) continue;
      this.justPosted = n;
      return;
    }
    this.exit(ACCESS.PORT_WRITE, port, size, value);
  }

  readMmio(gpa: number, size: AccessSize): number {
    return this.exit(ACCESS.MMIO_READ, gpa, size, 0);
  }

  writeMmio(gpa: number, size: AccessSize, value: number): void {
    for (const { base, length } of this.posted.ranges)
      if (gpa >= base && gpa + size <= base + length && this.post(gpa, size, value)) return;
    this.exit(ACCESS.MMIO_WRITE, gpa, size, value);
  }

  /** The interrupt acknowledge cycle at the 8259 pair. */
  acknowledge(): number {
    return this.exit(ACCESS.ACKNOWLEDGE, 0, 1, 0);
  }

  endOfInterrupt(vector: number): void {
    Atomics.or(this.link.words, this.link.at + VCPU.EOIS + (vector >>> 5), 1 << (vector & 31));
    this.news(NEWS.EOI);
  }

  /** EOI of the edge-triggered vector that is watched. */
  watchedServed(vector: number): void {
    Atomics.store(this.link.words, this.link.at + VCPU.WATCHED, vector);
    this.news(NEWS.WATCHED);
  }

  /** Level-triggered messages that were not accepted are to be sent again. */
  retry(): void {
    this.news(NEWS.ACCEPTS);
  }

  private news(what: number): void {
    if ((Atomics.or(this.link.words, this.link.at + VCPU.NEWS, what) & what) !== what) this.ring();
  }

  /** False where there is no room: then the access has to wait. */
  private post(gpa: number, size: number, value: number): boolean {
    const { words, at } = this.link;
    const written = Atomics.load(words, at + VCPU.WRITES_POSTED);
    if (((written - Atomics.load(words, at + VCPU.WRITES_TAKEN)) | 0) >= WRITES_MAX) return false;
    const entry = at + VCPU.WRITES + (written & (WRITES_MAX - 1)) * 4;
    words[entry] = gpa % TWO_32;
    words[entry + 1] = gpa / TWO_32;
    words[entry + 2] = size;
    words[entry + 3] = value;
    this.statistics.posted++;
    Atomics.store(words, at + VCPU.WRITES_POSTED, (written + 1) | 0);
    if ((size & IS_PORT) === 0 || ++this.unrung >= RING_AFTER) this.ring();
    return true;
  }

  private ring(): void {
    this.unrung = 0;
    this.bell.ring();
  }

  /** To be called where a run ends: what was posted is not left lying. */
  flush(): void {
    if (this.unrung !== 0) this.ring();
  }

  private exit(access: number, address: number, size: number, value: number): number {
    const { words, at } = this.link;
    this.statistics.exits++;
    this.justPosted = -1;
    words[at + VCPU.EXIT_ACCESS] = access;
    words[at + VCPU.EXIT_ADDRESS_LOW] = address % TWO_32;
    words[at + VCPU.EXIT_ADDRESS_HIGH] = address / TWO_32;
    words[at + VCPU.EXIT_BYTES] = size;
    words[at + VCPU.EXIT_VALUE] = value;
    const turn = at + VCPU.EXIT_TURN;
    Atomics.store(words, turn, TURN.DEVICES);
    this.ring();
    for (let n = 0; n < SPINS && Atomics.load(words, turn) === TURN.DEVICES; n++) spinPause();
    if (Atomics.load(words, turn) === TURN.DEVICES) this.statistics.slept++;
    while (Atomics.load(words, turn) === TURN.DEVICES) Atomics.wait(words, turn, TURN.DEVICES);
    Atomics.store(words, turn, TURN.NOBODY);
    return words[at + VCPU.EXIT_VALUE] >>> 0;
  }
}

/** What the devices' thread does for the accesses. */
export interface ExitServer {
  readonly io: IoAccess;
  acknowledge(): number;
  endOfInterrupt(vector: number): void;
  watchedServed(vector: number): void;
  retry(): void;
}

/** The side of the devices' thread, for one vCPU. */
export class ExitReceiver {
  private readonly link: VcpuLink;

  constructor(link: VcpuLink) {
    this.link = link;
  }

  /** Whether the vCPU waits for an answer. */
  get waiting(): boolean {
    return this.link.load(VCPU.EXIT_TURN) === TURN.DEVICES;
  }

  /** Takes what nobody waits for; true if there was anything. */
  takeNews(server: ExitServer): boolean {
    const { words, at } = this.link;
    let any = false;
    const posted = Atomics.load(words, at + VCPU.WRITES_POSTED);
    for (let n = Atomics.load(words, at + VCPU.WRITES_TAKEN); n !== posted; n = (n + 1) | 0) {
      const entry = at + VCPU.WRITES + (n & (WRITES_MAX - 1)) * 4;
      const address = (words[entry + 1] >>> 0) * TWO_32 + (words[entry] >>> 0);
      const size = (words[entry + 2] & ~IS_PORT) as AccessSize;
      const isPort = (words[entry + 2] & IS_PORT) !== 0;
      const value = words[entry + 3] >>> 0;
      Atomics.store(words, at + VCPU.WRITES_TAKEN, (n + 1) | 0);
      if (isPort) server.io.writePort(address, size, value);
      else server.io.writeMmio(address, size, value);
      any = true;
    }
    if (Atomics.load(words, at + VCPU.NEWS) === 0) return any;
    const news = Atomics.exchange(words, at + VCPU.NEWS, 0);
    if (news & NEWS.EOI) {
      for (let word = 0; word < 8; word++) {
        let vectors = Atomics.exchange(words, at + VCPU.EOIS + word, 0);
        while (vectors !== 0) {
          const bit = 31 - Math.clz32(vectors);
          vectors &= ~(1 << bit);
          server.endOfInterrupt(word * 32 + bit);
        }
      }
    }
    if (news & NEWS.WATCHED) server.watchedServed(words[at + VCPU.WATCHED]);
    if (news & NEWS.ACCEPTS) server.retry();
    return true;
  }

  /** Does the access that the vCPU waits for. */
  serve(server: ExitServer): void {
    const { words, at } = this.link;
    const address = (words[at + VCPU.EXIT_ADDRESS_HIGH] >>> 0) * TWO_32 + (words[at + VCPU.EXIT_ADDRESS_LOW] >>> 0);
    const size = words[at + VCPU.EXIT_BYTES] as AccessSize;
    const value = words[at + VCPU.EXIT_VALUE] >>> 0;
    switch (words[at + VCPU.EXIT_ACCESS]) {
      case ACCESS.PORT_READ:
        this.answer(server.io.readPort(address, size));
        break;
      case ACCESS.PORT_WRITE:
        server.io.writePort(address, size, value);
        this.answer(0);
        break;
      case ACCESS.MMIO_READ:
        this.answer(server.io.readMmio(address, size));
        break;
      case ACCESS.MMIO_WRITE:
        server.io.writeMmio(address, size, value);
        this.answer(0);
        break;
      default:
        this.answer(server.acknowledge());
    }
  }

  /** Lets the vCPU go on with all ones, as where nobody is: the machine has ended. */
  dismiss(): void {
    this.answer(0xffffffff);
  }

  private answer(value: number): void {
    const { words, at } = this.link;
    words[at + VCPU.EXIT_VALUE] = value;
    Atomics.store(words, at + VCPU.EXIT_TURN, TURN.VCPU);
    Atomics.notify(words, at + VCPU.EXIT_TURN);
  }
}
