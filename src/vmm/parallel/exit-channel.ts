// Accesses of a vCPU to devices, which another thread runs: the vCPU writes one record, rings, and waits for the answer, at first by spinning,
// for most answers come within a few microseconds. Memory writes into PCI windows are posted, as on a PCI bus (PCI Local Bus Specification
// 3.0, 3.2.5): nobody waits for them, and a later access of the same vCPU finds them done. EOIs of level-triggered interrupts are posted too.

import type { AccessSize } from "../bus.ts";
import type { IoAccess } from "../io-space.ts";
import { ACCESS, type Doorbell, NEWS, TURN, VCPU, WRITES_MAX } from "./control-area.ts";
import { spinPause } from "./spin.ts";
import type { VcpuLink } from "./vcpu-link.ts";

const TWO_32 = 2 ** 32;
/** An answer that takes longer than so many looks is waited for asleep. */
const SPINS = 400;

/** A range of guest-physical memory where writes are posted. */
export interface PostedRange {
  readonly base: number;
  readonly length: number;
}

/** The vCPU's side. */
export class ExitChannel implements IoAccess {
  readonly statistics = { exits: 0, posted: 0, slept: 0 };
  private readonly link: VcpuLink;
  private readonly bell: Doorbell;
  private readonly posted: readonly PostedRange[];

  constructor(link: VcpuLink, bell: Doorbell, posted: readonly PostedRange[]) {
    this.link = link;
    this.bell = bell;
    this.posted = posted;
  }

  readPort(port: number, size: AccessSize): number {
    return this.exit(ACCESS.PORT_READ, port, size, 0);
  }

  writePort(port: number, size: AccessSize, value: number): void {
    this.exit(ACCESS.PORT_WRITE, port, size, value);
  }

  readMmio(gpa: number, size: AccessSize): number {
    return this.exit(ACCESS.MMIO_READ, gpa, size, 0);
  }

  writeMmio(gpa: number, size: AccessSize, value: number): void {
    for (const { base, length } of this.posted)
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

  /** Level-triggered messages that were not accepted are to be sent again. */
  retry(): void {
    this.news(NEWS.ACCEPTS);
  }

  private news(what: number): void {
    if ((Atomics.or(this.link.words, this.link.at + VCPU.NEWS, what) & what) !== what) this.bell.ring();
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
    this.bell.ring();
    return true;
  }

  private exit(access: number, address: number, size: number, value: number): number {
    const { words, at } = this.link;
    this.statistics.exits++;
    words[at + VCPU.EXIT_ACCESS] = access;
    words[at + VCPU.EXIT_ADDRESS_LOW] = address % TWO_32;
    words[at + VCPU.EXIT_ADDRESS_HIGH] = address / TWO_32;
    words[at + VCPU.EXIT_BYTES] = size;
    words[at + VCPU.EXIT_VALUE] = value;
    const turn = at + VCPU.EXIT_TURN;
    Atomics.store(words, turn, TURN.DEVICES);
    this.bell.ring();
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
      const size = words[entry + 2] as AccessSize;
      const value = words[entry + 3] >>> 0;
      Atomics.store(words, at + VCPU.WRITES_TAKEN, (n + 1) | 0);
      server.io.writeMmio(address, size, value);
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
