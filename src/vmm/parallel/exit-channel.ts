// Accesses of a vCPU to devices, which another thread runs: the vCPU writes one record, rings, and waits for the answer, at first by spinning,
// for most answers come within a few microseconds. Nobody waits for posted writes (`posted-writes.ts`) and EOIs of level-triggered interrupts.

import type { AccessSize } from "../bus.ts";
import type { IoAccess } from "../io-space.ts";
import { ACCESS, type ControlArea, type Doorbell, NEWS, TURN, VCPU } from "./control-area.ts";
import {
  isUnanswered,
  isUsual,
  type KnownPort,
  knownValue,
  othersHavePosted,
  type PostedAccesses,
  type PostedPort,
  postWrite,
} from "./posted-writes.ts";
import { spinPause } from "./spin.ts";
import type { VcpuLink } from "./vcpu-link.ts";

const TWO_32 = 2 ** 32;
/** An answer that takes longer than so many looks is waited for asleep. */
const SPINS = 400;
/** Posted writes that can wait: after so many the devices' thread is woken, and after so many ns. A console's line is many of them. */
const RING_AFTER = 64;
const RING_AFTER_NS = 1e6;

/** The vCPU's side. */
export class ExitChannel implements IoAccess {
  readonly statistics = { exits: 0, posted: 0, slept: 0 };
  private readonly area: ControlArea;
  private readonly link: VcpuLink;
  private readonly bell: Doorbell;
  private readonly posted: PostedAccesses;
  /** The port that the access before wrote to without waiting, and what. */
  private before: PostedPort | undefined;
  private written = 0;
  /** The last write to a port whose byte is known, and how much had been posted then; not if it was waited for since. */
  private last: { readonly port: number; readonly value: number; readonly position: number } | undefined;
  /** Posted writes that the devices' thread was not woken for. */
  private unrung = 0;
  /** When a run's end first found them; and that something may come of them. */
  private unrungSince = Number.POSITIVE_INFINITY;
  private urgent = false;

  constructor(area: ControlArea, link: VcpuLink, bell: Doorbell, posted: PostedAccesses) {
    this.area = area;
    this.link = link;
    this.bell = bell;
    this.posted = posted;
  }

  readPort(port: number, size: AccessSize): number {
    return this.known(port, size) ?? this.exit(ACCESS.PORT_READ, port, size, 0);
  }

  /** What can be said without asking. */
  private known(port: number, size: AccessSize): number | undefined {
    if (size === 1) for (const known of this.posted.known) if (known.port === port) return this.knownByte(known);
    if (this.before === undefined) return undefined;
    const { status, selects } = this.before;
    const { words } = this.link;
    if (status !== undefined && status.port === port && size === 1 && isUsual(words, status.flag)) {
      this.before = undefined;
      return status.value;
    }
    if (selects === undefined || port < selects.port || port + size > selects.port + selects.bytes) return undefined;
    const target = selects.target(this.written);
    return target >= 0 && isUnanswered(words, target) ? 2 ** (8 * size) - 1 : undefined;
  }

  private knownByte({ port, index, mask }: KnownPort): number | undefined {
    const { area, link, last } = this;
    if (othersHavePosted(area, link.id)) return undefined;
    // Before the byte is looked at: what is done then has become known.
    const waits = last !== undefined && ((last.position - link.load(VCPU.WRITES_TAKEN)) | 0) > 0;
    const value = knownValue(area.words, index);
    if (value === undefined || !waits) return value;
    return last.port === port ? last.value & mask : undefined;
  }

  writePort(port: number, size: AccessSize, value: number): void {
    for (const posted of this.posted.ports) {
      if (posted.port !== port || posted.size !== size || !postWrite(this.link, true, port, size, value)) continue;
      this.before = posted;
      this.written = value;
      if (this.posted.known.some((known) => known.port === port))
        this.last = { port, value, position: this.link.load(VCPU.WRITES_POSTED) };
      this.wasPosted(posted, value);
      return;
    }
    this.exit(ACCESS.PORT_WRITE, port, size, value);
  }

  readMmio(gpa: number, size: AccessSize): number {
    return this.exit(ACCESS.MMIO_READ, gpa, size, 0);
  }

  writeMmio(gpa: number, size: AccessSize, value: number): void {
    for (const range of this.posted.ranges) {
      const { base, length } = range;
      if (gpa < base || gpa + size > base + length || !postWrite(this.link, false, gpa, size, value)) continue;
      this.wasPosted(range, value);
      return;
    }
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

  private wasPosted({ wakes, status }: Pick<PostedPort, "wakes" | "status">, value: number): void {
    this.statistics.posted++;
    const wake = typeof wakes === "string" ? wakes : wakes(value);
    if (wake === "now" || ++this.unrung >= RING_AFTER) this.ring();
    else if (status !== undefined && !isUsual(this.link.words, status.flag)) this.urgent = true;
  }

  private ring(): void {
    this.unrung = 0;
    this.unrungSince = Number.POSITIVE_INFINITY;
    this.urgent = false;
    this.bell.ring();
  }

  /** To be called where a run ends: what was posted is not left lying for long. `now` gives ns. */
  flushIfDue(now: () => number): void {
    if (this.unrung === 0) return;
    const time = now();
    this.unrungSince = Math.min(this.unrungSince, time);
    if (this.urgent || time - this.unrungSince >= RING_AFTER_NS) this.ring();
  }

  /** To be called where the vCPU stops to execute. */
  flush(): void {
    if (this.unrung !== 0) this.ring();
  }

  /** To be called where the devices' state becomes another: nothing is known of the access before. */
  forget(): void {
    this.before = undefined;
    this.last = undefined;
  }

  private exit(access: number, address: number, size: number, value: number): number {
    const { words, at } = this.link;
    this.statistics.exits++;
    this.before = undefined;
    this.last = undefined;
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

  /** Takes news; true if there were any. */
  takeNews(server: ExitServer): boolean {
    const { words, at } = this.link;
    if (Atomics.load(words, at + VCPU.NEWS) === 0) return false;
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
