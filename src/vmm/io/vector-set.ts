// A set of the 256 interrupt vectors as eight words, as the IRR, ISR and TMR hold it (SDM Vol. 3A 11.8.4):
// vector v is bit v MOD 32 of word v DIV 32.

export function newVectorSet(): Uint32Array {
  return new Uint32Array(8);
}

export function hasVector(set: Uint32Array, vector: number): boolean {
  return (set[vector >>> 5] & (1 << (vector & 31))) !== 0;
}

export function addVector(set: Uint32Array, vector: number): void {
  set[vector >>> 5] |= 1 << (vector & 31);
}

export function removeVector(set: Uint32Array, vector: number): void {
  set[vector >>> 5] &= ~(1 << (vector & 31));
}

/** The highest vector in the set, which is the one of highest priority; -1 if it is empty. */
export function highestVector(set: Uint32Array): number {
  for (let word = 7; word >= 0; word--) {
    if (set[word] !== 0) return word * 32 + 31 - Math.clz32(set[word]);
  }
  return -1;
}
