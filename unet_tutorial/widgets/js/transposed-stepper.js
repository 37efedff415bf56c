// A transposed convolution with stride 2 as a scatter: each value stamps the stencil.

{
  const { fill, decimal, scale } = UNetBook;

  // As torch.nn.functional.conv_transpose2d with stride 2, of the first `count` values.
  const scatter = (values, stencil, count = Infinity) => {
    const side = stencil.length;
    const [rows, columns] = [values.length, values[0].length];
    const large = fill(2 * rows - 2 + side, 2 * columns - 2 + side, () => 0);
    fill(rows, columns, (r, c) => {
      const value = r * columns + c < count ? values[r][c] : 0;
      fill(side, side, (i, j) => (large[2 * r + i][2 * c + j] += value * stencil[i][j]));
    });
    return large;
  };

  // As interpolate(scale_factor=2, mode="bilinear", align_corners=False): pixel k of the large map
  // lies at k / 2 - 1 / 4 of the small one, and the border is held.
  const bilinear = (values) => {
    const mix = (k, length, value) => {
      const at = Math.max(k / 2 - 0.25, 0);
      const low = Math.floor(at);
      return value(low) + (at - low) * (value(Math.min(low + 1, length - 1)) - value(low));
    };
    const [rows, columns] = [values.length, values[0].length];
    return fill(2 * rows, 2 * columns, (r, c) =>
      mix(r, rows, (row) => mix(c, columns, (column) => values[row][column])));
  };

  const look = (get, walk) => {
    const even = (map) => fill(map.length, map[0].length, () => 1);
    const flat = even(get("values"));
    const values = get("input") === "flat" ? flat : get("values");
    const [row, column] = walk(values);
    const stencil = get("stencils")[get("stencil")];
    const counted = get("show") === "overlap";
    const stamps = counted ? [flat, even(stencil)] : [values, stencil];
    const wide = bilinear(values);
    const color = scale(values, wide, scatter(...stamps));
    const name = counted ? "stamps on each pixel" : "large map";
    const frame = UNetBook.square(2 * row, 2 * column, stencil.length);
    const shown = [
      { name: "small map", values, color, pick: 1 },
      { name: "stencil", values: stencil, color: scale(stencil) },
      { name, values: scatter(...stamps, get("position") + 1), color, frame },
      { name: "bilinear", values: wide, color },
    ];
    const from = UNetBook.at(2 * row, 2 * column);
    return [shown, `${decimal(values[row][column])} × stencil, added from ${from} on`];
  };

  UNetBook.register("transposed-stepper", UNetBook.stepper({ place: "value", look }));
  Object.assign(UNetBook, { scatter, bilinear });
}
