/** Who served it: "upstream", "memory" or "node/<name>". */
export const SOURCE_HEADER = 'salvor-source';
/** When the upstream confirmed what is answered while it cannot be asked. */
export const OBSERVED_AT_HEADER = 'salvor-observed-at';
