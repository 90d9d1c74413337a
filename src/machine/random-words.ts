// Random 32-bit words for RDRAND and RDSEED, fetched from the host in batches: a call for each word costs a guest's boot noticeably.

import type { Host } from "../host/host.ts";

const BATCH = 1024;

export class RandomWords {
  private readonly host: Host;
  private readonly words = new Uint32Array(BATCH);
  private used = BATCH;

  constructor(host: Host) {
    this.host = host;
  }

  word(): number {
    if (this.used === BATCH) {
      this.host.randomFill(new Uint8Array(this.words.buffer));
      this.used = 0;
    }
    const word = this.words[this.used];
    // No word is kept once it was given away.
    this.words[this.used++] = 0;
    return word;
  }
}
