// The slider shows the same share of removed cells for every method.
document.addEventListener('input', (event) => {
  const section = event.target.closest('.removal');
  if (!section || event.target.type !== 'range') return;
  const step = Number(event.target.value);
  for (const film of section.querySelectorAll('.films figure'))
    film.querySelectorAll('.frame').forEach((frame, index) => { frame.hidden = index !== step; });
  section.querySelector('output').textContent = `${Math.round((100 * step) / Number(event.target.max))}% removed`;
});
