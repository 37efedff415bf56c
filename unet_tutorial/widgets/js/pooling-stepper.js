// 2×2 max pooling, one square at a time: who wins, and what the output cannot tell.

{
  const { fill, decimal, square } = UNetBook;
  const PLACES = ["top left", "top right", "bottom left", "bottom right"];
  const NEXT = [1, 3, 0, 2]; // clockwise

  // As torch.nn.functional.max_pool2d: the first of equals wins, an odd row or column is dropped.
  const maxPool = (values) =>
    fill(values.length / 2, values[0].length / 2, (r, c) => {
      const four = NEXT.map((_, k) => values[2 * r + (k >> 1)][2 * c + (k & 1)]);
      const best = Math.max(...four);
      return { four, best, winner: four.indexOf(best) };
    });

  // The winner changes places with the next smaller value.
  const moveWinner = (values, row, column) => {
    const { four, best, winner } = maxPool(values)[row][column];
    let to = NEXT[winner];
    while (to !== winner && four[to] === best) to = NEXT[to];
    const moved = structuredClone(values);
    moved[2 * row + (winner >> 1)][2 * column + (winner & 1)] = four[to];
    moved[2 * row + (to >> 1)][2 * column + (to & 1)] = best;
    return moved;
  };

  const look = (get, walk) => {
    const values = get("values");
    const color = UNetBook.scale(values);
    const squares = maxPool(values);
    const [row, column] = walk(squares);
    const { four, best, winner } = squares[row][column];
    const whole = square(2 * row, 2 * column, 2);
    const won = square(2 * row + (winner >> 1), 2 * column + (winner & 1), 1);
    const frame = (r, c) => whole(r, c) / 2 + won(r, c);
    const output = squares.map((line) => line.map((one) => one.best));
    const shown = [
      { name: "map", values, color, frame, pick: 2 },
      { name: "pooled", values: output, color, pick: 1, fills: true },
    ];
    const lost = four.filter((_, k) => k !== winner).map(decimal).join(", ");
    const top = decimal(best);
    const all = `and the place: ${top} is all that the output says.`;
    return [shown, `${top}, ${PLACES[winner]}, wins. Thrown away: ${lost}, ${all}`];
  };

  const stepper = UNetBook.stepper({ place: "square", look, act: moveWinner });
  UNetBook.register("pooling-stepper", stepper);
  Object.assign(UNetBook, { maxPool, moveWinner });
}
