// Messages to the thread that runs a machine, through shared memory: that thread executes guest code or sleeps in Atomics.wait, and never
// gets back to an event loop that could hand it any. One sender, one receiver; others may ring the doorbell for news of their own. Any change rings a doorbell word, which the receiver compares
// while it runs and waits on while it sleeps.
//
//   bytes 0-3    DOORBELL   counts up with every message and every acknowledgement
//   bytes 4-7    WRITTEN    bytes of the ring that were ever written, modulo 2^32; the sender's
//   bytes 8-11   READ       the same, taken by the receiver
//   bytes 12-15  CONSUMED   bytes of output that the sender's side has taken off the receiver's hands, modulo 2^32
//   bytes 16-19  ASLEEP     1 while the receiver waits at the doorbell, or is about to
//   from 64      ring of RING_BYTES: messages, each a header of 8 bytes (length, kind), then the payload

const WORD = { DOORBELL: 0, WRITTEN: 1, READ: 2, CONSUMED: 3, ASLEEP: 4 } as const;
const RING_AT = 64;
/** A power of two, so that positions modulo 2^32 wrap with the ring. */
const RING_BYTES = 1 << 16;
const HEADER_BYTES = 8;

export const MAILBOX_BYTES = RING_AT + RING_BYTES;
/** The longest payload; a message of that length needs the ring to be empty. */
export const PAYLOAD_MAX = RING_BYTES - HEADER_BYTES;

export interface MailboxMessage {
  readonly kind: number;
  readonly payload: Uint8Array;
}

class Ring {
  readonly words: Int32Array;
  readonly bytes: Uint8Array;

  constructor(memory: SharedArrayBuffer) {
    this.words = new Int32Array(memory, 0, RING_AT / 4);
    this.bytes = new Uint8Array(memory, RING_AT, RING_BYTES);
  }

  ringBell(): void {
    Atomics.add(this.words, WORD.DOORBELL, 1);
    // Who says that it sleeps only after this compares the doorbell once more, and sees that it has rung.
    if (Atomics.load(this.words, WORD.ASLEEP) !== 0) Atomics.notify(this.words, WORD.DOORBELL);
  }

  wait(bell: number, milliseconds: number): void {
    Atomics.store(this.words, WORD.ASLEEP, 1);
    Atomics.wait(this.words, WORD.DOORBELL, bell, milliseconds);
    Atomics.store(this.words, WORD.ASLEEP, 0);
  }

  copyIn(at: number, source: Uint8Array): void {
    for (let i = 0; i < source.length; i++) this.bytes[(at + i) & (RING_BYTES - 1)] = source[i];
  }

  copyOut(at: number, length: number): Uint8Array {
    return Uint8Array.from({ length }, (_, i) => this.bytes[(at + i) & (RING_BYTES - 1)]);
  }
}

/** The doorbell alone, for threads that have other ways to say what they want. */
export class MailboxBell {
  private readonly inner: Ring;

  constructor(memory: SharedArrayBuffer) {
    this.inner = new Ring(memory);
  }

  ring(): void {
    this.inner.ringBell();
  }
}

export class MailboxSender {
  readonly memory: SharedArrayBuffer;
  private readonly ring: Ring;

  constructor(memory: SharedArrayBuffer = new SharedArrayBuffer(MAILBOX_BYTES)) {
    this.memory = memory;
    this.ring = new Ring(memory);
  }

  /** False where there is no room now. */
  trySend(kind: number, payload: Uint8Array): boolean {
    if (payload.length > PAYLOAD_MAX) throw new RangeError("the message is longer than the mailbox");
    const { words } = this.ring;
    const written = Atomics.load(words, WORD.WRITTEN) >>> 0;
    const used = (written - Atomics.load(words, WORD.READ)) >>> 0;
    const length = HEADER_BYTES + payload.length;
    if (used + length > RING_BYTES) return false;
    const header = new Uint8Array(Uint32Array.of(payload.length, kind).buffer);
    this.ring.copyIn(written, header);
    this.ring.copyIn(written + HEADER_BYTES, payload);
    Atomics.store(words, WORD.WRITTEN, (written + length) | 0);
    this.ring.ringBell();
    return true;
  }

  /** Waits for room without blocking the thread. */
  async send(kind: number, payload: Uint8Array): Promise<void> {
    for (;;) {
      const read = Atomics.load(this.ring.words, WORD.READ);
      if (this.trySend(kind, payload)) return;
      await Atomics.waitAsync(this.ring.words, WORD.READ, read).value;
    }
  }

  /** Output has been dealt with: the receiver may make more. */
  consumed(bytes: number): void {
    Atomics.add(this.ring.words, WORD.CONSUMED, bytes);
    this.ring.ringBell();
  }
}

export class MailboxReceiver {
  private readonly ring: Ring;

  constructor(memory: SharedArrayBuffer) {
    this.ring = new Ring(memory);
  }

  /** The doorbell: while it is the same as before, nothing has come. */
  bell(): number {
    return Atomics.load(this.ring.words, WORD.DOORBELL);
  }

  /** The next message, or undefined. */
  take(): MailboxMessage | undefined {
    const { words } = this.ring;
    const read = Atomics.load(words, WORD.READ) >>> 0;
    if (Atomics.load(words, WORD.WRITTEN) >>> 0 === read) return undefined;
    const header = new DataView(this.ring.copyOut(read, HEADER_BYTES).buffer);
    const length = header.getUint32(0, true);
    const payload = this.ring.copyOut(read + HEADER_BYTES, length);
    Atomics.store(words, WORD.READ, (read + HEADER_BYTES + length) | 0);
    Atomics.notify(words, WORD.READ);
    return { kind: header.getUint32(4, true), payload };
  }

  /** Bytes of output dealt with so far, modulo 2^32. */
  consumed(): number {
    return Atomics.load(this.ring.words, WORD.CONSUMED) >>> 0;
  }

  /** Sleeps until the doorbell is no longer `bell`, at most so long. */
  wait(bell: number, milliseconds: number): void {
    this.ring.wait(bell, milliseconds);
  }
}
