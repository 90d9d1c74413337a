// Random programs through the translator and the interpreter until so many blocks have run in both.

import { RandomBlocks } from "../cpu/random-blocks.ts";

/** Programs after which what has been reached is told, and the engines are made anew. */
const ROUND = 9600;
const REPORT_MS = 10_000;

/** Programs are numbered from `seed` times a billion. The exit status. */
export function compareTranslator(blocks: number, seed: number): number {
  const start = performance.now();
  let shown = start;
  let done = 0;
  let regions = 0;
  let next = seed * 1e9;
  const tell = (moreBlocks: number, moreRegions: number): void => {
    const seconds = (performance.now() - start) / 1000;
    const count = done + moreBlocks;
    console.log(
      `${count} blocks in ${regions + moreRegions} regions, no difference, ${Math.round(count / seconds)} a second; ` +
        `programs ${seed * 1e9} to ${next - 1}`,
    );
  };
  while (done < blocks) {
    const random = new RandomBlocks();
    for (let n = 0; n < ROUND && done + random.blocks < blocks; n += 240) {
      try {
        random.run(next, 240);
      } catch (error) {
        console.log(`${error instanceof Error ? error.message : error}\nafter ${done + random.blocks} blocks`);
        return 1;
      }
      next += 240;
      if (performance.now() - shown < REPORT_MS) continue;
      shown = performance.now();
      tell(random.blocks, random.regions);
    }
    done += random.blocks;
    regions += random.regions;
    if (done >= blocks) tell(0, 0);
  }
  return 0;
}
