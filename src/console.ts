// One byte stream of a machine as web streams: what the guest writes is read from `readable`, what is written to `writable` the guest reads.

import type { MailboxSender } from "./host/mailbox.ts";
import { MESSAGE } from "./machine/protocol.ts";

/** Output kept for a reader that may yet come; beyond it the oldest is dropped. With a reader nothing is: the guest waits. */
const UNREAD_KEPT = 1 << 20;
/** Input on its way to the guest. */
const INPUT_WINDOW = 1 << 15;
const INPUT_PIECE = 4096;

export interface Console {
  /** What the guest writes. Ends when the machine has ended. */
  readonly readable: ReadableStream<Uint8Array<ArrayBuffer>>;
  /** What the guest reads. A write is done when the guest's device has taken it. */
  readonly writable: WritableStream<Uint8Array>;
}

export class ConsoleStreams implements Console {
  readonly readable: ReadableStream<Uint8Array<ArrayBuffer>>;
  readonly writable: WritableStream<Uint8Array>;
  private readonly mailbox: MailboxSender;
  private readonly channel: number;
  private chunks: Uint8Array<ArrayBuffer>[] = [];
  private unread = 0;
  private controller: ReadableStreamDefaultController<Uint8Array<ArrayBuffer>> | undefined;
  private wanted = false;
  private cancelled = false;
  private ended = false;
  /** Input sent and not taken, and who waits for that to change. */
  private outstanding = 0;
  private wake: (() => void) | undefined;

  constructor(mailbox: MailboxSender, channel: number) {
    this.mailbox = mailbox;
    this.channel = channel;
    this.readable = new ReadableStream<Uint8Array<ArrayBuffer>>(
      {
        start: (controller) => {
          this.controller = controller;
        },
        pull: () => {
          this.wanted = true;
          this.hand();
        },
        cancel: () => {
          this.cancelled = true;
          this.drop(0);
        },
      },
      { highWaterMark: 0 },
    );
    this.writable = new WritableStream<Uint8Array>({ write: (chunk) => this.send(chunk) });
  }

  /** The guest wrote. */
  received(bytes: Uint8Array<ArrayBuffer>): void {
    this.chunks.push(bytes);
    this.unread += bytes.length;
    if (this.cancelled) this.drop(0);
    else if (!this.readable.locked) this.drop(UNREAD_KEPT);
    this.hand();
  }

  /** The guest's device took input. */
  taken(bytes: number): void {
    this.outstanding -= bytes;
    this.wake?.();
  }

  /** The machine is gone: what is unread can still be read, what is written is lost. */
  end(): void {
    this.ended = true;
    this.wake?.();
    this.hand();
  }

  private hand(): void {
    if (this.cancelled || this.controller === undefined) return;
    while (this.wanted && this.chunks.length > 0) {
      const chunk = this.chunks.shift();
      if (chunk === undefined) return;
      this.wanted = false;
      this.forget(chunk);
      this.controller.enqueue(chunk);
    }
    if (this.ended && this.chunks.length === 0) {
      this.cancelled = true;
      this.controller.close();
    }
  }

  private drop(kept: number): void {
    while (this.unread > kept) {
      const chunk = this.chunks.shift();
      if (chunk === undefined) return;
      this.forget(chunk);
    }
  }

  private forget(chunk: Uint8Array): void {
    this.unread -= chunk.length;
    this.mailbox.consumed(chunk.length);
  }

  private async send(chunk: Uint8Array): Promise<void> {
    for (let at = 0; at < chunk.length && !this.ended; at += INPUT_PIECE) {
      const piece = chunk.subarray(at, at + INPUT_PIECE);
      const message = new Uint8Array(piece.length + 1);
      message[0] = this.channel;
      message.set(piece, 1);
      this.outstanding += piece.length;
      await this.mailbox.send(MESSAGE.INPUT, message);
      while (this.outstanding > INPUT_WINDOW && !this.ended) await this.change();
    }
  }

  private change(): Promise<void> {
    return new Promise((resolve) => {
      this.wake = () => {
        this.wake = undefined;
        resolve();
      };
    });
  }
}
