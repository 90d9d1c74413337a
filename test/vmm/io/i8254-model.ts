// An 8254 counter that counts pulse by pulse, as the data sheet's mode definitions tell it: the oracle for the arithmetic one.
// Binary counts of two bytes only.

export class PulseModel {
  mode = 0;
  gate = true;
  out = false;
  /** The counting element. */
  ce = 0;
  private cr = 0;
  private written = false;
  private loadNext = false;
  private counting = false;
  private finished = false;
  private startedOdd = false;

  control(mode: number): void {
    this.mode = mode;
    this.out = mode !== 0;
    this.written = this.loadNext = this.counting = this.finished = false;
  }

  firstByte(): void {
    if (this.mode !== 0) return;
    this.out = false;
    this.counting = false;
    this.loadNext = false;
    this.written = false;
  }

  write(count: number): void {
    this.cr = count === 0 ? 0x10000 : count;
    this.written = true;
    if (this.mode === 1 || this.mode === 5) return;
    // While a periodic mode counts, its next reload takes the new count.
    if ((this.mode !== 2 && this.mode !== 3) || !this.counting) this.loadNext = true;
  }

  setGate(level: boolean): void {
    if (level === this.gate) return;
    this.gate = level;
    if (this.mode === 2 || this.mode === 3) {
      if (!level) {
        this.out = true;
        this.counting = false;
      } else if (this.written) this.loadNext = true;
    } else if ((this.mode === 1 || this.mode === 5) && level && this.written) this.loadNext = true;
  }

  /** One clock pulse. */
  pulse(): void {
    if (this.loadNext) {
      this.load();
      return;
    }
    const gated = this.mode === 0 || this.mode === 4;
    if (!this.counting || (gated && !this.gate)) return;
    switch (this.mode) {
      case 2:
        this.ce--;
        if (this.ce === 1) this.out = false;
        if (this.ce === 0) {
          this.out = true;
          this.reload();
        }
        break;
      case 3:
        // An odd count is loaded less one, and its high half ends one pulse after the count has expired.
        if (this.startedOdd && this.out ? this.ce === 0 : this.ce === 2) {
          this.out = !this.out;
          this.reload();
        } else this.ce -= 2;
        break;
      default: {
        if (this.mode > 3 && !this.out) this.out = true;
        this.ce = (this.ce - 1) & 0xffff;
        if (this.ce !== 0 || this.finished) break;
        this.finished = true;
        this.out = this.mode < 2;
      }
    }
  }

  private reload(): void {
    this.startedOdd = this.mode === 3 && (this.cr & 1) === 1;
    this.ce = this.startedOdd ? this.cr - 1 : this.cr;
  }

  private load(): void {
    this.loadNext = false;
    this.reload();
    this.finished = false;
    this.counting = !((this.mode === 2 || this.mode === 3) && !this.gate);
    if (this.mode === 1) this.out = false;
    if (this.mode > 3) this.out = true;
  }
}
