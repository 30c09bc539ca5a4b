-- The corpus: one row a document. Name the columns as the model's text fields are named; `id` is a string, and unique.
SELECT
  CAST(id AS STRING) AS id,
  title,
  abstract
FROM `PROJECT.DATASET.papers`
WHERE COALESCE(title, abstract) IS NOT NULL
