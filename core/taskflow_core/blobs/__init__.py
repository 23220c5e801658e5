"""Objects in any store that speaks S3: inputs, outputs, whatever is too large for a resource."""
